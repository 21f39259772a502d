"""The agent: decides about connections, does their handshakes outside the program, and installs or relays."""
