"""`ktls policy`: what administrators do with policies, one module per kind of command."""
