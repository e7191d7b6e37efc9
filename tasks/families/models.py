"""Structures of families: which model for which goal, and the family that they make.

A `Structure` is all that is static about a family. Its text is the family's name.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, TypeAlias, final

import flax.linen as nn

from veldt.tasks.data import dataset
from veldt.tasks.families import chains, leaves, patterns, sources, supervised_family
from veldt.tasks.shipped import image_models, language

Kind: TypeAlias = Literal[
    "perceptron",
    "convolution",
    "residual",
    "autoencoder",
    "transformer",
    "language",
    "recurrent",
    "tabular",
]
"""`residual` is of convolutions, `transformer` of image patches, `language` a transformer of text,
`recurrent` a GRU of it, `tabular` a perceptron of tables' rows."""

Normalisation: TypeAlias = Literal["none", "layer"]
"""Normalisation in front of the activations of perceptrons; other kinds have their own."""

ActivationName: TypeAlias = Literal["relu", "tanh", "gelu", "silu", "elu", "softplus"]

ACTIVATIONS: dict[ActivationName, image_models.Activation] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "elu": nn.elu,
    "softplus": nn.softplus,
}

TEXT_KINDS: tuple[Kind, ...] = ("language", "recurrent")

IMAGE_SOURCES: dict[str, Callable[[], sources.Source]] = {
    **{name: functools.partial(patterns.PATTERNS.__getitem__, name) for name in patterns.PATTERNS},
    "leaves": leaves.Leaves,
    "digits": sources.digits,
}
"""Sources of 8x8 images, by name."""

TEXT_SOURCES: dict[str, Callable[[int], sources.Source]] = {
    "chains": chains.Chains,
    "jargon": sources.jargon,
    "code": sources.code,
    "manual": sources.manual,
}
"""Sources of texts in windows of a given length, by name."""

_NUM_PIXELS = 64
_PATCH = 2
_NUM_HEADS = 2
_BLOCKS_PER_STAGE = 1
_RESIDUAL_POOL = 2  # On 8x8 pixels such a net would take longer than all other kinds together.


@final
@dataclasses.dataclass(frozen=True)
class Structure:
    """The static properties that all members of a family share.

    Attributes:
      kind: Kind of the model.
      widths: Widths of hidden layers; of an autoencoder, down to the narrowest; channels of
        convolutions. A transformer or a recurrent model has the same width in each block, and it is
        even.
      activation: Activation between layers; a recurrent model has its own.
      batch_size: Number of examples of a training batch.
      source: Name in `IMAGE_SOURCES`, `TEXT_SOURCES` or `dataset.TABLES`, as the kind requires.
      window: Number of symbols of an example, for texts.
      initialiser: Distribution of the initial weights.
      normalisation: Normalisation of a perceptron's hidden layers.
    """

    kind: Kind
    widths: tuple[int, ...]
    activation: ActivationName
    batch_size: int
    source: str
    window: int = 0
    initialiser: supervised_family.Initialiser = "normal"
    normalisation: Normalisation = "none"

    def __str__(self) -> str:
        """Return a short description: `perceptron 64-32-10 relu batch 64 on patterns`."""
        words = [self.kind, self._shape()]
        words += [self.activation] if self.kind != "recurrent" else []
        words += [f"{self.normalisation}-normalised"] if self.normalisation != "none" else []
        words += [self.initialiser] if self.initialiser != "normal" else []
        words += ["batch", str(self.batch_size), "on", self.source]
        return " ".join(words)

    def family(
        self,
        *,
        init_scales: tuple[float, float] = (0.5, 2.0),
        contrasts: tuple[float, float] = (0.2, 1.0),
        brightnesses: tuple[float, float] = (0.0, 0.5),
        data_sizes: tuple[int, int] | None = None,
        name: str | None = None,
    ) -> supervised_family.SupervisedFamily:
        """Make the family; its name is by default the description by `str`."""
        source = self._source()
        return supervised_family.SupervisedFamily(
            name=name or str(self),
            source=source,
            module=self._module(source.num_outputs),
            goal=self._goal(),
            batch_size=self.batch_size,
            initialiser=self.initialiser,
            init_scales=init_scales,
            contrasts=contrasts,
            brightnesses=brightnesses,
            data_sizes=data_sizes,
        )

    def _goal(self) -> supervised_family.Goal:
        if self.kind == "autoencoder":
            return "reconstruct"
        if self.kind == "tabular" and dataset.TABLES[self.source] is None:
            return "regress"
        return "predict" if self.kind in TEXT_KINDS else "classify"

    def _source(self) -> sources.Source:
        if self.kind in TEXT_KINDS:
            return TEXT_SOURCES[self.source](self.window)
        if self.kind == "tabular":
            return sources.table(self.source)
        return IMAGE_SOURCES[self.source]()

    def _shape(self) -> str:
        if self.kind == "perceptron":
            return "-".join(map(str, (_NUM_PIXELS, *self.widths, 10)))
        if self.kind == "autoencoder":
            return "-".join(map(str, (_NUM_PIXELS, *self._hourglass())))
        if self.kind in ("convolution", "residual", "tabular"):
            return "-".join(map(str, self.widths))
        shape = f"{self.widths[0]}x{len(self.widths)}"
        return f"{shape} window {self.window}" if self.kind in TEXT_KINDS else shape

    def _hourglass(self) -> tuple[int, ...]:
        return (*self.widths, *self.widths[-2::-1], _NUM_PIXELS)

    def _module(self, num_outputs: int) -> nn.Module:
        activation = ACTIVATIONS[self.activation]
        width, depth = self.widths[0], len(self.widths)
        match self.kind:
            case "perceptron" | "tabular":
                layers = (*self.widths, num_outputs)
                if self.normalisation == "layer":
                    return image_models.LayerNormMlp(layers, activation)
                return image_models.Mlp(layers, activation)
            case "autoencoder":
                return image_models.Mlp(self._hourglass(), activation, output_variance=0.01)
            case "convolution":
                return image_models.Conv(self.widths, num_outputs, activation)
            case "residual":
                return image_models.ResidualConv(
                    self.widths, _BLOCKS_PER_STAGE, num_outputs, activation, pool=_RESIDUAL_POOL
                )
            case "transformer":
                return image_models.VisionTransformer(
                    _PATCH, width, _NUM_HEADS, depth, num_outputs, activation
                )
            case "language":
                return language.Transformer(num_outputs, width, _NUM_HEADS, depth, activation)
            case "recurrent":
                return language.Gru(num_outputs, width)
