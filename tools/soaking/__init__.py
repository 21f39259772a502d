"""What `tools/soak` is made of (docs/soak.md)."""
