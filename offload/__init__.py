"""Who does the cryptography of a session: a network device, the kernel, or user space."""
