"""Neural update rules: their features, their architectures, their published weights.

A learned optimizer is a small network that reads a parameter's history and writes its update. Its
weights are the meta-parameters that `veldt.meta` trains. `wrappers` go around any transform. This
room may import `veldt.tasks`.
"""
