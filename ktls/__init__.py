"""TLS at the socket for unmodified Linux programs: policy decides, an agent does the handshake, the kernel encrypts.

Nothing is imported here: `ktls run` starts programs, and every module it does not need would be start-up time.
"""

__version__ = "0.1.0"
