"""Scaling rules for a first learning rate: Step Law, the square-root batch rule, muP.

- Step Law, Li et al. 2025 (arXiv 2503.04715): power laws fitted to 3,700 language models.
- The square-root rule of Malladi, Lyu, Panigrahi and Arora 2022 (arXiv 2205.10287): how Adam's
  settings follow the batch, so that its stochastic differential equation stays the same; for plain
  gradient descent the rule is linear.
- muP, Yang et al. 2021 (Tensor Programs V, arXiv 2203.03466, table 8, which package `mup` follows):
  how width changes initialization, multipliers and rates, so that rates carry over.
"""

import dataclasses
import math
from typing import Literal, TypeAlias, final


def step_law_learning_rate(num_params: float, num_tokens: float) -> float:
    """Return Step Law's peak learning rate, 1.79 N^-0.713 D^0.307.

    For AdamW with a warm-up and a cosine decay down to a rate of 1e-5.

    Args:
      num_params: Number of parameters, N, without the vocabulary's embeddings.
      num_tokens: Number of tokens, D, of the training data.
    """
    return 1.79 * num_params**-0.713 * num_tokens**0.307


def step_law_batch_size(num_tokens: float) -> float:
    """Return Step Law's batch in tokens, 0.58 D^0.571; D is the tokens of the training data."""
    return 0.58 * num_tokens**0.571


@final
@dataclasses.dataclass(frozen=True)
class AdamSettings:
    """Settings of Adam that the square-root rule scales.

    Attributes:
      learning_rate: Learning rate, η.
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      eps: Number that is added to the root of the second moment.
    """

    learning_rate: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


def square_root_rule(settings: AdamSettings, batch_ratio: float) -> AdamSettings:
    """Return the settings of Adam for another batch size.

    With κ the ratio: η √κ, 1 - κ (1 - b1), 1 - κ (1 - b2), ε / √κ. RMSprop's are those of b1 = 0.

    Args:
      settings: Settings for the old batch size.
      batch_ratio: Ratio of batch sizes, κ, the new batch size over the old one.

    Raises:
      ValueError: A decay would be negative: the rule holds no longer.
    """
    root = math.sqrt(batch_ratio)
    # Without momentum there is nothing to scale.
    b1 = 1.0 - batch_ratio * (1.0 - settings.b1) if settings.b1 else 0.0
    b2 = 1.0 - batch_ratio * (1.0 - settings.b2)
    if b1 < 0.0 or b2 < 0.0:
        raise ValueError(
            f"a batch {batch_ratio:g} times as large would need b1 = {b1:g} and b2 = {b2:g}: "
            "the square-root rule does not reach so far"
        )
    return AdamSettings(settings.learning_rate * root, b1, b2, settings.eps / root)


def linear_rule(learning_rate: float, batch_ratio: float) -> float:
    """Return the rate of gradient descent for a batch `batch_ratio` times as large: linear."""
    return learning_rate * batch_ratio


TensorKind: TypeAlias = Literal["input", "hidden", "output"]
"""Which of a tensor's sides grow with the width: the outputs alone (also every bias and gain,
and embeddings), both, the inputs alone (the readout)."""


@final
@dataclasses.dataclass(frozen=True)
class MupMultipliers:
    """Multipliers of the settings of a base width, by muP.

    Attributes:
      init_std: Multiplier of the standard deviation that a tensor is initialized with.
      output: Multiplier of the product with the tensor, in the forward pass.
      adam_rate: Multiplier of Adam's learning rate for the tensor.
      sgd_rate: Multiplier of gradient descent's learning rate for the tensor.
    """

    init_std: float
    output: float
    adam_rate: float
    sgd_rate: float


def mup_multipliers(kind: TensorKind, width_ratio: float) -> MupMultipliers:
    """Return the multipliers of a tensor's settings at `width_ratio` times the base width.

    The initialization is relative to what is used at the base width: a hidden tensor's variance
    goes as 1 / fan-in, an input's and a readout's stay.

    Args:
      kind: Which sides of the tensor grow.
      width_ratio: Ratio of widths, m, the width over the base width.
    """
    ratio = width_ratio
    if kind == "hidden":
        return MupMultipliers(init_std=ratio**-0.5, output=1.0, adam_rate=1.0 / ratio, sgd_rate=1.0)
    if kind == "output":
        return MupMultipliers(init_std=1.0, output=1.0 / ratio, adam_rate=1.0, sgd_rate=ratio)
    return MupMultipliers(init_std=1.0, output=1.0, adam_rate=1.0, sgd_rate=ratio)


def mup_attention_scale(head_dim: int, base_head_dim: int) -> float:
    """Return what muP scales attention logits by: 1 / d, equal to 1 / √d at the base width."""
    return math.sqrt(base_head_dim) / head_dim
