"""The objectives of a search: how a training run becomes a score, lower is better.

| objective | a run's score |
|---|---|
| held_out_loss | log normalised loss on the validation split at the end of training |
| train_loss | log normalised training loss, mean over the batches since the last check |
| lr_robustness | `held_out_loss`, at most 0, mean over rates from 1/4 to 4 times the rule's own |
| module:function | result of a function of yours on the run, see `Training` |

Everything in a search is scored this way, on its own seeds and tasks: fitness, challenges,
meta-validation, the finals, baselines alike; a candidate's score is the mean over its runs. A run
must not be better than `MIN_LOG_LOSS`, so that one perfect task decides nothing by itself.
Differences of scores are shown as relative changes of a loss, so a function of yours should return
a logarithm.
"""

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.errors import SearchError, UnknownNameError
from veldt.tasks.common import errors, spelling
from veldt.tasks.common.user_code import imports
from veldt.tasks.inner_loop.hollow import MIN_NORMALIZED

MIN_LOG_LOSS: Final = math.log(MIN_NORMALIZED)
# A log loss at which nothing was learnt; all larger ones count the same.
NOTHING_LEARNT: Final = 0.0
DEFAULT: Final = "held_out_loss"


@final
@dataclass(frozen=True, slots=True)
class Training:
    """The measurements of one training run; a user's objective is called with one.

    Losses come in the task's own unit and normalised: 0 is perfect, 1 is as good as knowing
    nothing. The training loss of a check is the mean over the batches since the check before.

    Attributes:
      task: Name of the task in the config.
      seed: Seed of the run.
      learning_rate: Learning rate of the training.
      num_steps: Training steps in all.
      steps: Steps done at each check; the last is `num_steps`.
      train_losses: Training loss by check.
      valid_losses: Loss on the validation split, by check.
      train: Training loss by check, normalised.
      valid: Loss on the validation split by check, normalised.
    """

    task: str
    seed: int
    learning_rate: float
    num_steps: int
    steps: tuple[int, ...]
    train_losses: tuple[float, ...]
    valid_losses: tuple[float, ...]
    train: tuple[float, ...]
    valid: tuple[float, ...]


class Objective(abc.ABC):
    """A way in which training becomes a score.

    Attributes:
      description: Description of the score, for people: "mean ...".
      rate_factors: Learning rates that a run is trained at, relative to the one used, which is
        first. Only training at that one has to pass the hurdle and may not diverge.
      is_last_check: Whether a run's score is the value of the last check, which the hurdle limits;
        else the score itself is compared with the initial rule's.
      scores_training: Whether losses along the way count, so that `hollow` has to watch them.
    """

    description: str
    rate_factors: tuple[float, ...]
    is_last_check: bool
    scores_training: bool = False

    @abc.abstractmethod
    def checked(self, train: float, valid: float) -> float:
        """Return the log loss of a check, to compare with the hurdle, from normalised losses."""

    @abc.abstractmethod
    def score(self, trained: Sequence[Training | None]) -> float:
        """Return the score of a run.

        Args:
          trained: Training at each of `rate_factors`; None where it diverged, which the first did
            not.
        """


@final
class HeldOutLoss(Objective):
    """The loss on the validation split when training ends."""

    description = "mean log normalised validation loss"
    rate_factors = (1.0,)
    is_last_check = True

    def checked(self, train: float, valid: float) -> float:
        return log_loss(valid)

    def score(self, trained: Sequence[Training | None]) -> float:
        return log_loss(_first(trained).valid[-1])


@final
class TrainLoss(Objective):
    """The training loss towards the end: speed of optimisation, without generalisation."""

    description = "mean log normalised training loss since the last check"
    rate_factors = (1.0,)
    is_last_check = True
    scores_training = True

    def checked(self, train: float, valid: float) -> float:
        return log_loss(train)

    def score(self, trained: Sequence[Training | None]) -> float:
        return log_loss(_first(trained).train[-1])


@final
class RateRobustness(Objective):
    """The area under the curve of the held-out loss against the learning rate."""

    description = (
        "mean log normalised validation loss, at most 0, over learning rates from 1/4 to 4 times "
        "the rule's own"
    )
    rate_factors = (1.0, 0.25, 0.5, 2.0, 4.0)
    is_last_check = False

    def checked(self, train: float, valid: float) -> float:
        return log_loss(valid)

    def score(self, trained: Sequence[Training | None]) -> float:
        losses = [NOTHING_LEARNT if one is None else log_loss(one.valid[-1]) for one in trained]
        return sum(min(loss, NOTHING_LEARNT) for loss in losses) / len(losses)


@final
class UserObjective(Objective):
    """A user's function of one run; the hurdle along the way is on the held-out loss."""

    rate_factors = (1.0,)
    is_last_check = False
    scores_training = True  # The function may read any loss.

    def __init__(self, name: str, function: Callable[[Training], float]):
        """Set up a function under the name that it was given by."""
        self.description = f"mean score by {name}"
        self._function = function

    def checked(self, train: float, valid: float) -> float:
        return log_loss(valid)

    def score(self, trained: Sequence[Training | None]) -> float:
        return float(self._function(_first(trained)))


OBJECTIVES: Final[Mapping[str, type[HeldOutLoss] | type[TrainLoss] | type[RateRobustness]]] = {
    DEFAULT: HeldOutLoss,
    "train_loss": TrainLoss,
    "lr_robustness": RateRobustness,
}
"""The objectives by name."""


def check_name(name: str) -> None:
    """Raise an error for what cannot name an objective; import nothing.

    Raises:
      ValueError: There is no such objective.
    """
    if name not in OBJECTIVES and ":" not in name:
        raise ValueError(
            f"there is no objective {name!r}{spelling.did_you_mean(name, OBJECTIVES)}; there are "
            f'{", ".join(OBJECTIVES)}, and a function of yours as "module:function"'
        )


def load(name: str) -> Objective:
    """Return the objective of a name.

    Args:
      name: One of `OBJECTIVES`, or `module:function`, found in the current directory or among
        installed packages.

    Raises:
      UnknownNameError: There is no such objective.
      SearchError: The function cannot be imported.
    """
    try:
        check_name(name)
        if name in OBJECTIVES:
            return OBJECTIVES[name]()
        return UserObjective(name, imports.load_object("objective", name))
    except (ValueError, errors.UnknownNameError) as error:
        raise UnknownNameError(str(error)) from error
    except errors.TaskError as error:
        raise SearchError(str(error)) from error


def describe(name: str) -> str:
    """Return what a search's scores are, for people; import nothing."""
    return OBJECTIVES[name].description if name in OBJECTIVES else f"mean score by {name}"


def log_loss(normalized: float) -> float:
    """Return the finite logarithm of a normalised loss."""
    return math.log(max(normalized, MIN_NORMALIZED))


def _first(trained: Sequence[Training | None]) -> Training:
    first = trained[0]
    assert first is not None, "training at the rule's own rate came to its end"
    return first
