"""What a search optimises: how a training run becomes a score, lower is better.

| objective | a run's score |
|---|---|
| held_out_loss | log normalised loss on the validation split at the end of training |
| train_loss | log normalised training loss, mean over the batches since the last check |
| lr_robustness | `held_out_loss`, at most 0, mean over rates from 1/4 to 4 times the rule's own |
| module:function | what a function of yours makes of the run, see `Training` |

Whatever is scored in a search is scored so, seeds and tasks apart: fitness, challenges,
meta-validation, the finals, baselines alike; a candidate's score is the mean over its runs. A run
must not be better than `MIN_LOG_LOSS`, so that one perfect task decides nothing by itself.
Differences of scores are told as relative changes of a loss: a function of yours had better return
a logarithm.
"""

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.errors import SearchError, UnknownNameError
from veldt.tasks.common import errors, imports, spelling
from veldt.tasks.inner_loop.hollow import MIN_NORMALIZED

MIN_LOG_LOSS: Final = math.log(MIN_NORMALIZED)
# A log loss that says that nothing was learnt; beyond it all is alike.
NOTHING_LEARNT: Final = 0.0
DEFAULT: Final = "held_out_loss"


@final
@dataclass(frozen=True, slots=True)
class Training:
    """What one training run measured; a user's objective is called with one.

    Losses come in the task's own unit and normalised: 0 is perfect, 1 knows nothing. The training
    loss of a check is the mean over the batches since the check before.

    Attributes:
      task: its name in the config.
      seed: of the run.
      learning_rate: that it was trained at.
      num_steps: training steps in all.
      steps: done at each check; the last is `num_steps`.
      train_losses: training loss by check.
      valid_losses: loss on the validation split, by check.
      train: training loss by check, normalised.
      valid: loss on the validation split by check, normalised.
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
    """How training becomes a score.

    Attributes:
      description: of the score, for people: "mean ...".
      rate_factors: learning rates that a run is trained at, relative to the one used, which is
        first. Only training at that one has to pass the hurdle and may not diverge.
      is_last_check: whether a run's score is what its last check holds against the hurdle; else the
        score is held against the initial rule's by itself.
      scores_training: whether losses along the way count, so that `hollow` has to watch them.
    """

    description: str
    rate_factors: tuple[float, ...]
    is_last_check: bool
    scores_training: bool = False

    @abc.abstractmethod
    def checked(self, train: float, valid: float) -> float:
        """The log loss that a check holds against the hurdle, from normalised losses."""

    @abc.abstractmethod
    def score(self, trained: Sequence[Training | None]) -> float:
        """A run's score.

        Args:
          trained: one for each of `rate_factors`; None where training diverged, which the first
            did not.
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
    """The training loss towards the end: speed of optimisation, generalisation apart."""

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
    """A user's function of one run; the hurdle along the way is of the held-out loss."""

    rate_factors = (1.0,)
    is_last_check = False
    scores_training = True  # What a function reads is its own business.

    def __init__(self, name: str, function: Callable[[Training], float]):
        """A function under the name that it was given by."""
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
    """Refuses what cannot name an objective; imports nothing.

    Raises:
      ValueError: there is no such objective.
    """
    if name not in OBJECTIVES and ":" not in name:
        raise ValueError(
            f"there is no objective {name!r}{spelling.did_you_mean(name, OBJECTIVES)}; there are "
            f'{", ".join(OBJECTIVES)}, and a function of yours as "module:function"'
        )


def load(name: str) -> Objective:
    """The objective of a name.

    Args:
      name: one of `OBJECTIVES`, or `module:function`, looked for in the current directory and among
        installed packages.

    Raises:
      UnknownNameError: there is none.
      SearchError: the function cannot be imported.
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
    """What a search's scores are, for people; imports nothing."""
    return OBJECTIVES[name].description if name in OBJECTIVES else f"mean score by {name}"


def log_loss(normalized: float) -> float:
    """A normalised loss's logarithm, finite."""
    return math.log(max(normalized, MIN_NORMALIZED))


def _first(trained: Sequence[Training | None]) -> Training:
    first = trained[0]
    assert first is not None, "training at the rule's own rate came to its end"
    return first
