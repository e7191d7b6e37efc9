"""Suites: named lists of tasks that are scored together, with the number of steps of each."""

from dataclasses import dataclass
from typing import final

from veldt.tasks.common import errors, spelling


@final
@dataclass(frozen=True, slots=True)
class SuiteTask:
    """A task of a suite and the length of its training.

    Attributes:
      task: Name of a shipped task, or "module:factory".
      num_steps: Number of training steps.
    """

    task: str
    num_steps: int


@final
@dataclass(frozen=True, slots=True)
class Suite:
    """Tasks scored together.

    Attributes:
      name: Name in commands and configs.
      description: Description, one line.
      tasks: Tasks, each once.
    """

    name: str
    description: str
    tasks: tuple[SuiteTask, ...]

    def __post_init__(self) -> None:
        names = [entry.task for entry in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            what = f"names {', '.join(twice)} twice" if twice else "has no tasks"
            raise errors.TaskError(f"suite {self.name!r} {what}.")
        for entry in self.tasks:
            if entry.num_steps < 1:
                raise errors.TaskError(
                    f"suite {self.name!r}: task {entry.task!r} has num_steps "
                    f"{entry.num_steps}; it must be at least 1."
                )


_SMALL = (
    SuiteTask("quadratic_stiff", 2000),
    SuiteTask("breast_cancer_logistic", 500),
    SuiteTask("letters_mlp", 2000),
    SuiteTask("digits_mlp", 1000),
    SuiteTask("digits_conv", 1500),
    SuiteTask("digits_resnet", 500),
    SuiteTask("digits_vit", 600),
    SuiteTask("digits_autoencoder", 2000),
    SuiteTask("digits_vae", 2000),
    SuiteTask("digits_diffusion", 1500),
    SuiteTask("prose_gru", 600),
    SuiteTask("prose_transformer", 600),
    SuiteTask("cartpole_policy", 400),
    SuiteTask("digits_mlp_es", 1500),
    SuiteTask("learned_optimizer", 300),
)

_LARGER = (
    SuiteTask("quadratic", 500),
    SuiteTask("quadratic_noisy", 1000),
    SuiteTask("quadratic_large", 5000),
    SuiteTask("letters_logistic", 1000),
    SuiteTask("breast_cancer_mlp", 500),
    SuiteTask("letters_mlp_deep", 5000),
    SuiteTask("digits_mlp_deep", 3000),
    SuiteTask("digits_mlp_wide", 1000),
    SuiteTask("digits_mixer", 2000),
    SuiteTask("digits_conv_wide", 1000),
    SuiteTask("digits_autoencoder_deep", 5000),
    SuiteTask("prose_gru_wide", 3000),
    SuiteTask("prose_lstm", 3000),
    SuiteTask("prose_transformer_deep", 5000),
    SuiteTask("prose_transformer_wide", 3000),
    SuiteTask("cartpole_policy_long", 1000),
    SuiteTask("pendulum_pathwise", 2000),
    SuiteTask("digits_conv_es", 5000),
    SuiteTask("learned_optimizer_long", 2000),
    SuiteTask("fashion_mlp", 3000),
    SuiteTask("fashion_mlp_wide", 5000),
    SuiteTask("fashion_conv", 3000),
    SuiteTask("fashion_conv_wide", 5000),
    SuiteTask("fashion_resnet", 5000),
    SuiteTask("fashion_vit", 5000),
    SuiteTask("fashion_autoencoder", 5000),
    SuiteTask("fashion_vae", 5000),
    SuiteTask("fashion_diffusion", 10000),
)

# No search may train on these, nor choose by them, and they share no data with the tasks that
# searches do train on: what a discovered rule scores here, once, is what it is worth elsewhere.
_UNSEEN = (
    SuiteTask("photo_distortion_resnet", 300),
    SuiteTask("photo_masked_transformer", 250),
    SuiteTask("photo_denoise_unet", 250),
    SuiteTask("photo_coordinates", 1000),
    SuiteTask("burgers_operator", 300),
    SuiteTask("heat_pinn", 500),
    SuiteTask("arm_regression", 200),
    SuiteTask("arm_residual_deep", 500),
    SuiteTask("ratings_factorisation", 1000),
    SuiteTask("communities_graph", 500),
    SuiteTask("sorting_transformer", 300),
    SuiteTask("adding_mgu", 300),
    SuiteTask("prose_lstm", 200),
    SuiteTask("prose_transformer_deep", 150),
)

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "smoke",
            "four small tasks of different kinds, seconds each",
            (
                SuiteTask("quadratic", 300),
                SuiteTask("breast_cancer_logistic", 300),
                SuiteTask("digits_mlp", 500),
                SuiteTask("digits_autoencoder", 500),
            ),
        ),
        Suite(
            "small",
            f"{len(_SMALL)} tasks of as many kinds: minutes for a candidate on two cores",
            _SMALL,
        ),
        Suite(
            "full",
            f"small and {len(_LARGER)} more, larger, deeper or longer, some on Fashion-MNIST: "
            "for a GPU",
            _SMALL + _LARGER,
        ),
        Suite(
            "unseen",
            f"{len(_UNSEEN)} tasks that no search may train on: photographs, physics, graphs, ...",
            _UNSEEN,
        ),
    )
}
"""The shipped suites by name."""


def load_suite(name: str) -> Suite:
    """Return a shipped suite by its name.

    Raises:
      UnknownSuiteError: No shipped suite has the name.
    """
    if name not in SUITES:
        hint = spelling.did_you_mean(name, SUITES)
        raise errors.UnknownSuiteError(
            f"unknown suite {name!r}{hint}. Suites: {', '.join(SUITES)}; or give a YAML file or "
            '"module:factory".'
        )
    return SUITES[name]
