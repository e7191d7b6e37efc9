"""The hand-made optimizers that everything is compared with, from Optax, with their settings.

Each has Optax's defaults except for what is written here. The centres of the rates are those
at which the optimizers are known to work, checked on the suites: an optimizer whose best rate lies
at the edge of its grid is marked in the results.
"""

from typing import Final

from veldt.tasks.benchmark.protocol.candidates import FactoryCandidate, rate_grid

ADAM: Final = "adam"

BASELINES: Final = {
    row.name: row
    for row in (
        FactoryCandidate(
            "sgd_momentum", "optax:sgd", (("momentum", 0.9),), rates=rate_grid(10**-1.0)
        ),
        FactoryCandidate(ADAM, "optax:adam", rates=rate_grid(10**-2.0)),
        FactoryCandidate("adamw", "optax:adamw", rates=rate_grid(10**-2.0)),
        FactoryCandidate("nadamw", "optax:nadamw", rates=rate_grid(10**-2.0)),
        FactoryCandidate("lion", "optax:lion", rates=rate_grid(10**-2.75)),
        FactoryCandidate("adafactor", "optax:adafactor", rates=rate_grid(10**-1.0)),
        FactoryCandidate("muon", "optax.contrib:muon", rates=rate_grid(10**-1.75)),
        FactoryCandidate(
            "schedule_free_adamw",
            "optax.contrib:schedule_free_adamw",
            rates=rate_grid(10**-1.5),
        ),
    )
}
"""Baselines by name."""

REFERENCE: Final = FactoryCandidate(
    ADAM, "optax:adam", rates=tuple(10 ** (-3.75 + i / 4) for i in range(15))
)
"""Adam for the envelope: 15 learning rates, 1.8e-4 to 0.56. Every second one of the inner
rates is one of the seven that Adam is tuned over as a contestant."""
