"""Which connections are TLS, and how: the policy language, its checks, its compiled form, and the decision.

Nothing is imported here, because `ktls run` starts programs. The names to use are `policy.load.load`,
`policy.secure_port.secure_port`, `policy.decide.decide` and the data of `policy.model`; docs/policy.md is the language.
"""
