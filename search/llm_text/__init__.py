"""A language model's part of a search as text: prompts, answers and the grammar.

Nothing here calls a model. `prompt_data` holds what a prompt shows, `prompts` writes it, `answers`
reads programs from what comes back, and `grammar` makes a grammar that a server can hold a model
to.
"""
