"""Single tasks for meta-validation: members of families whose structure or data are held back.

Configs name them as "veldt.tasks.families.checks:clutter_conv". No suite scores on them. A
meta-training that validates on one leaves its source out of its distribution: clutter, diabetes.
None of them can be learned to a loss of 0, whose logarithm would outweigh all others.
"""

import jax

from veldt.tasks import base
from veldt.tasks.families import models

_DATA_SIZES = (2000, 2000)


def clutter_mlp() -> base.Task:
    """Classify 2,000 cluttered patterns with a 64-48-24-10 perceptron, batch 48."""
    structure = models.Structure("perceptron", (48, 24), "gelu", 48, "clutter")
    return _member("clutter_mlp", structure)


def clutter_conv() -> base.Task:
    """Classify 2,000 cluttered patterns with convolutions of 6 and 12 channels, batch 24."""
    return _member("clutter_conv", models.Structure("convolution", (6, 12), "silu", 24, "clutter"))


def clutter_autoencoder() -> base.Task:
    """Squeeze 2,000 cluttered patterns through 6 numbers, 64-40-20-6-20-40-64, batch 24."""
    structure = models.Structure("autoencoder", (40, 20, 6), "tanh", 24, "clutter")
    return _member("clutter_autoencoder", structure)


def diabetes_mlp() -> base.Task:
    """Predict the course of a disease of 265 patients with two layers of width 24, batch 8."""
    return _member("diabetes_mlp", models.Structure("tabular", (24, 24), "elu", 8, "diabetes"))


def _member(name: str, structure: models.Structure) -> base.Task:
    """Return a member of middling scales."""
    family = structure.family(
        name=name,
        init_scales=(1.0, 1.0),
        contrasts=(0.5, 0.5),
        brightnesses=(0.25, 0.25),
        data_sizes=_DATA_SIZES,
    )
    return family.task(family.sample(jax.random.key(0)))
