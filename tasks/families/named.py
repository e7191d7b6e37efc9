"""Families with names of their own: one of each kind, on procedural data, cheap to train.

`veldt meta-train` trains on families that are drawn (see `distribution`); these are for trials.
"""

from veldt.tasks.families import models, supervised_family


def patterns_mlp() -> supervised_family.SupervisedFamily:
    """Classify random patterns with a 64-32-10 perceptron."""
    return _named("patterns_mlp", models.Structure("perceptron", (32,), "relu", 64, "patterns"))


def patterns_conv() -> supervised_family.SupervisedFamily:
    """Classify random patterns with two small convolutions."""
    structure = models.Structure("convolution", (8, 16), "relu", 64, "patterns")
    return _named("patterns_conv", structure)


def patterns_autoencoder() -> supervised_family.SupervisedFamily:
    """Squeeze random patterns through 8 numbers, 64-32-8-32-64."""
    structure = models.Structure("autoencoder", (32, 8), "tanh", 64, "patterns")
    return _named("patterns_autoencoder", structure)


def patterns_vit() -> supervised_family.SupervisedFamily:
    """Classify random patterns with a transformer over 16 patches, width 16, one block."""
    structure = models.Structure("transformer", (16,), "gelu", 32, "patterns")
    return _named("patterns_vit", structure)


def chains_transformer() -> supervised_family.SupervisedFamily:
    """Predict the next symbol of random Markov chains with one transformer block of width 16."""
    structure = models.Structure("language", (16,), "gelu", 16, "chains", window=16)
    return _named("chains_transformer", structure)


def chains_gru() -> supervised_family.SupervisedFamily:
    """Predict the next symbol of random Markov chains with a GRU of width 32."""
    structure = models.Structure("recurrent", (32,), "tanh", 16, "chains", window=16)
    return _named("chains_gru", structure)


def _named(name: str, structure: models.Structure) -> supervised_family.SupervisedFamily:
    return structure.family(name=name)
