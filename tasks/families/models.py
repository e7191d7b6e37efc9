"""Structures of families: which model for which goal, and the family that they make.

A `Structure` is all that is static about a family. Its text is the family's name.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias, final

import flax.linen as nn

from veldt.tasks.families import chains, patterns, sources, supervised_family
from veldt.tasks.shipped import image_models, language

Kind: TypeAlias = Literal[
    "perceptron", "convolution", "autoencoder", "transformer", "language", "recurrent"
]
"""`transformer` is of image patches, `language` a transformer of text, `recurrent` a GRU of it."""

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

IMAGE_SOURCES: tuple[str, ...] = (*patterns.PATTERNS, "digits")
"""Names of sources of 8x8 images."""

TEXT_SOURCES: dict[str, Callable[[int], sources.Source]] = {
    "chains": chains.Chains,
    "jargon": sources.jargon,
}
"""Sources of texts in windows of a given length, by name."""

_NUM_PIXELS = 64
_PATCH = 2
_NUM_HEADS = 2


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
      source: Name in `IMAGE_SOURCES` or `TEXT_SOURCES`, as the kind requires.
      window: Number of symbols of an example, for texts.
      initialiser: Distribution of the initial weights.
    """

    kind: Kind
    widths: tuple[int, ...]
    activation: ActivationName
    batch_size: int
    source: str
    window: int = 0
    initialiser: supervised_family.Initialiser = "normal"

    def __str__(self) -> str:
        """Return a short description: `perceptron 64-32-10 relu batch 64 on patterns`."""
        words = [self.kind, self._shape()]
        words += [self.activation] if self.kind != "recurrent" else []
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
        return "predict" if self.kind in TEXT_KINDS else "classify"

    def _source(self) -> sources.Source:
        if self.kind in TEXT_KINDS:
            return TEXT_SOURCES[self.source](self.window)
        return sources.digits() if self.source == "digits" else patterns.PATTERNS[self.source]

    def _shape(self) -> str:
        if self.kind == "perceptron":
            return "-".join(map(str, (_NUM_PIXELS, *self.widths, 10)))
        if self.kind == "autoencoder":
            return "-".join(map(str, (_NUM_PIXELS, *self._hourglass())))
        if self.kind == "convolution":
            return "-".join(map(str, self.widths))
        shape = f"{self.widths[0]}x{len(self.widths)}"
        return f"{shape} window {self.window}" if self.kind in TEXT_KINDS else shape

    def _hourglass(self) -> tuple[int, ...]:
        return (*self.widths, *self.widths[-2::-1], _NUM_PIXELS)

    def _module(self, num_outputs: int) -> nn.Module:
        activation = ACTIVATIONS[self.activation]
        width, depth = self.widths[0], len(self.widths)
        match self.kind:
            case "perceptron":
                return image_models.Mlp((*self.widths, num_outputs), activation)
            case "autoencoder":
                return image_models.Mlp(self._hourglass(), activation, output_variance=0.01)
            case "convolution":
                return image_models.Conv(self.widths, num_outputs, activation)
            case "transformer":
                return image_models.VisionTransformer(
                    _PATCH, width, _NUM_HEADS, depth, num_outputs, activation
                )
            case "language":
                return language.Transformer(num_outputs, width, _NUM_HEADS, depth, activation)
            case "recurrent":
                return language.Gru(num_outputs, width)
