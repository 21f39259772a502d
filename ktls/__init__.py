"""TLS at the socket for unmodified Linux programs: in the kernel where it can, in user space where it cannot."""
