"""The distribution of task families that a learned optimizer is meta-trained on.

A family has a structure (kind of model, widths, activation, batch size, source of data), drawn here
with ordinary random numbers, once; its members draw what may be traced. So a distribution is a
number of families, each of which compiles once. The proportions of kinds and augmentations are
VeLO's (arXiv 2211.09760) brought down to models that two CPU cores can train: 8x8 images, widths of
8 to 64. By default all data are procedural, so that nothing of the benchmark is seen.
"""

import dataclasses
from typing import cast, final, get_args

import numpy as np

from veldt.tasks import base
from veldt.tasks.common.config import bounds
from veldt.tasks.data import dataset
from veldt.tasks.families import augmentations as drawn
from veldt.tasks.families import models, odds, supervised_family

_MAX_TRIES = 100  # Draws of one family until it differs from all others.
_SIZES = (
    "widths",
    "bottlenecks",
    "channels",
    "model_widths",
    "depths",
    "batch_sizes",
    "text_batch_sizes",
    "windows",
)


@final
@dataclasses.dataclass(frozen=True)
class Distribution:
    """The choices that families are drawn from.

    The entries of a list, one per family or layer, are equally likely.

    Attributes:
      num_families: Number of families to draw.
      kinds: Relative odds of perceptron, convolution, residual (convolutions), autoencoder,
        transformer (of image patches), language (a transformer of text), recurrent (a GRU of text)
        and tabular (a perceptron of a table's rows).
      images: Relative odds of the sources of images: patterns, textures, clusters, clutter, leaves
        (all procedural, the last one with natural statistics), digits.
      texts: Relative odds of the sources of texts: chains (procedural), jargon, code and manual
        (both of the running Python).
      tables: Relative odds of the small tables: iris, wine, diabetes (a regression).
      widths: Widths of each hidden layer of a perceptron (of images or tables) or an autoencoder.
      bottlenecks: Narrowest widths of an autoencoder.
      channels: Numbers of channels of each convolution.
      model_widths: Widths of a transformer's blocks or a recurrent model, even.
      depths: Numbers of hidden layers, or of blocks.
      activations: Activations between layers.
      normalisations: Normalisations of a perceptron's hidden layers, "none" or "layer".
      initialisers: Distributions of initial weights.
      batch_sizes: Batch sizes of images.
      text_batch_sizes: Batch sizes of texts.
      windows: Numbers of symbols in a text's example.
      init_scales: Least and greatest factor on initial weights; members draw it log-uniformly.
      contrasts: Least and greatest standard deviation of pixels; log-uniform, too.
      brightnesses: Least and greatest mean of pixels of images to classify; uniform.
      data_sizes: Least and greatest number of training examples, log-uniform; null for no limit.
      augmentations: Odds of the augmentations that make families harder.
    """

    num_families: int = 16
    kinds: dict[str, float] = dataclasses.field(
        default_factory=lambda: {
            "perceptron": 4.0,
            "convolution": 1.0,
            "autoencoder": 1.0,
            "transformer": 1.0,
            "language": 0.5,
            "recurrent": 0.5,
        }
    )
    images: dict[str, float] = dataclasses.field(
        default_factory=lambda: {
            "patterns": 1.0,
            "textures": 1.0,
            "clusters": 1.0,
            "clutter": 1.0,
        }
    )
    texts: dict[str, float] = dataclasses.field(default_factory=lambda: {"chains": 1.0})
    tables: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(dataset.TABLES, 1.0)
    )
    widths: tuple[int, ...] = (8, 16, 32, 64)
    bottlenecks: tuple[int, ...] = (4, 8, 16)
    channels: tuple[int, ...] = (4, 8, 16)
    model_widths: tuple[int, ...] = (8, 16, 32)
    depths: tuple[int, ...] = (1, 2, 3)
    activations: tuple[models.ActivationName, ...] = ("relu", "tanh", "gelu", "silu", "elu")
    normalisations: tuple[models.Normalisation, ...] = ("none",)
    initialisers: tuple[supervised_family.Initialiser, ...] = ("normal", "uniform")
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128)
    text_batch_sizes: tuple[int, ...] = (8, 16, 32)
    windows: tuple[int, ...] = (8, 16)
    init_scales: tuple[float, float] = (0.5, 2.0)
    contrasts: tuple[float, float] = (0.2, 1.0)
    brightnesses: tuple[float, float] = (0.0, 0.5)
    data_sizes: tuple[int, int] | None = None
    augmentations: drawn.AugmentationConfig = dataclasses.field(
        default_factory=drawn.AugmentationConfig
    )

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "num_families")
        odds.check_odds("kinds", self.kinds, get_args(models.Kind))
        odds.check_odds("images", self.images, models.IMAGE_SOURCES)
        odds.check_odds("texts", self.texts, models.TEXT_SOURCES)
        odds.check_odds("tables", self.tables, dataset.TABLES)
        for name in _SIZES:
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1:
                raise ValueError(f"{name} is {list(sizes)}; it must have entries of 1 or more")
        if any(width % 2 for width in self.model_widths):
            raise ValueError(f"model_widths is {list(self.model_widths)}; two heads need even ones")
        for name in ("activations", "initialisers", "normalisations"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; it must have at least one entry")
        odds.check_range("init_scales", self.init_scales)
        odds.check_range("contrasts", self.contrasts)
        if self.data_sizes is not None:
            odds.check_range("data_sizes", self.data_sizes)
        if not self.brightnesses[0] <= self.brightnesses[1]:
            raise ValueError(f"brightnesses is {list(self.brightnesses)}; least first, then most")


TINY = Distribution(
    num_families=2,
    kinds={"perceptron": 1.0},
    images={"patterns": 1.0},
    widths=(4, 8),
    depths=(1,),
    activations=("relu",),
    initialisers=("normal",),
    batch_sizes=(8,),
    augmentations=drawn.NO_AUGMENTATIONS,
)
"""Two perceptrons, of width 4 and 8: for tests."""

CELO = Distribution(
    num_families=4,
    kinds={"perceptron": 1.0},
    widths=(32,),
    depths=(1,),
    activations=("relu",),
    initialisers=("normal",),
    batch_sizes=(64,),
    augmentations=dataclasses.replace(
        drawn.NO_AUGMENTATIONS, stretch={"global": 1.0}, stretch_ranges=((1e-3, 1e3),)
    ),
)
"""The tasks of Celo: one perceptron on four sources, stretched. There they are real images."""


def draw(distribution: Distribution, seed: int) -> tuple[base.TaskFamily, ...]:
    """Return the families, the same for the same seed.

    No two are alike as long as there are enough different ones; a family that is drawn twice
    nevertheless gets a number in its name.

    Raises:
      MissingDataError: A source's data are not on this machine.
    """
    # RandomState's streams never change.
    random = np.random.RandomState(seed)
    families: dict[str, base.TaskFamily] = {}
    for _ in range(distribution.num_families):
        for _ in range(_MAX_TRIES):
            structure = _draw_structure(distribution, random)
            family = drawn.augmented(
                structure.family(
                    init_scales=distribution.init_scales,
                    contrasts=distribution.contrasts,
                    brightnesses=distribution.brightnesses,
                    data_sizes=distribution.data_sizes,
                ),
                structure.batch_size,
                distribution.augmentations,
                random,
            )
            if family.name not in families:
                break
        else:
            count = sum(name.startswith(family.name) for name in families)
            vars(family)["name"] += f" ({count + 1})"
        families[family.name] = family
    return tuple(families.values())


def _draw_structure(distribution: Distribution, random: np.random.RandomState) -> models.Structure:
    """Draw a structure; what an older version did not draw is drawn last, or where it is new."""
    kind = cast(models.Kind, odds.weighted(distribution.kinds, random))  # Checked by the class.
    is_text = kind in models.TEXT_KINDS
    depth = odds.one(distribution.depths, random)
    if kind in ("perceptron", "tabular", "convolution", "residual"):
        is_dense = kind in ("perceptron", "tabular")
        choices = distribution.widths if is_dense else distribution.channels
        widths = tuple(odds.one(choices, random) for _ in range(depth))
    elif kind == "autoencoder":
        outer = sorted((odds.one(distribution.widths, random) for _ in range(depth)), reverse=True)
        widths = (*outer, odds.one(distribution.bottlenecks, random))
    else:
        widths = (odds.one(distribution.model_widths, random),) * (
            1 if kind == "recurrent" else depth
        )
    named = distribution.texts if is_text else distribution.images
    if kind == "tabular":
        named = distribution.tables
    structure = models.Structure(
        kind=kind,
        widths=widths,
        activation=odds.one(distribution.activations, random),
        batch_size=odds.one(
            distribution.text_batch_sizes if is_text else distribution.batch_sizes, random
        ),
        source=odds.weighted(named, random),
        window=odds.one(distribution.windows, random) if is_text else 0,
        initialiser=odds.one(distribution.initialisers, random),
    )
    if kind in ("perceptron", "tabular") and len(distribution.normalisations) > 1:
        normalisation = odds.one(distribution.normalisations, random)
        structure = dataclasses.replace(structure, normalisation=normalisation)
    return structure
