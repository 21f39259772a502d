"""From an IBM AT-TLS policy file to the policy language: statements, what they mean here, and what has no counterpart.

Source: z/OS Communications Server: IP Configuration Reference, "Policy Agent and policy applications", the AT-TLS
statements.
"""
