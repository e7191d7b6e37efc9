"""Which learned optimizers there are, by name."""

import dataclasses
from typing import Any

from veldt.learned_opt import base, errors
from veldt.learned_opt.architectures import adafac_mlp, celo, celo2, mlp, rnn_mlp, scaled, velo

# Sizes as published. "velo" and "velo_small" have the slips of the original corrected;
# `dataclasses.replace(..., statistics="published")` is what its published weights want.
ARCHITECTURES: dict[str, base.LearnedOptimizer] = {
    "mlp": mlp.Mlp(),
    "adafac_mlp": adafac_mlp.AdafacMlp(),
    "adafac_mlp_wide": adafac_mlp.AdafacMlp(hidden_size=32),
    "rnn_mlp": rnn_mlp.RnnMlp(),
    "velo": velo.Velo(),
    "velo_small": velo.Velo(lstm_size=64, bank_size=32, bank_scale=1.0),
    "celo": celo.Celo(),
    "celo2": celo2.Celo2(),
    "celo2_base": celo2.Celo2(newton_schulz_steps=0, vectors="network"),
    "scaled": scaled.Scaled(),
    "scaled_recurrent": scaled.Scaled(scale="recurrent"),
}


def names() -> list[str]:
    """Return the names of all architectures, sorted."""
    return sorted(ARCHITECTURES)


def architecture(name: str, **fields: Any) -> base.LearnedOptimizer:
    """Return the architecture of a name.

    Args:
      name: One of `names()`.
      **fields: Sizes and options in place of the published ones.

    Raises:
      UnknownArchitectureError: There is no such name, or the architecture has no such field.
    """
    if name not in ARCHITECTURES:
        raise errors.UnknownArchitectureError.of("learned optimizer", name, ARCHITECTURES)
    found: Any = ARCHITECTURES[name]
    known = [field.name for field in dataclasses.fields(found)]
    for field in fields:
        if field not in known:
            raise errors.UnknownArchitectureError.of(f"field of {name}", field, known)
    return dataclasses.replace(found, **fields)
