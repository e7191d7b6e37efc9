"""Configs of the tasks that candidates are trained on, and of the workers that train them."""

from dataclasses import dataclass, field
from typing import Literal, final

from veldt.search.config import objectives
from veldt.search.runtime import encode


@final
@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """A task that candidates are trained on.

    Attributes:
      task: Name of a shipped task, or `module:factory`.
      num_steps: Number of training steps of one run.
      num_chunks: Number of validation checks per run, evenly spaced; `num_steps` must be a multiple
        of it.
      schedule: Schedule of the learning rate, whose peak is the candidate's own: constant, or 5% of
        linear warm-up and a cosine or linear decay to 0, as `veldt evaluate` has them.
    """

    task: str
    num_steps: int
    num_chunks: int = 5
    schedule: Literal["constant", "warmup_cosine", "warmup_linear"] = "constant"

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.num_chunks < 1 or self.num_steps % self.num_chunks:
            raise ValueError(
                f"num_steps ({self.num_steps}) must be a positive multiple of num_chunks "
                f"({self.num_chunks})"
            )


@final
@dataclass(frozen=True, slots=True)
class EvaluatorConfig:
    """The settings that a worker is built from.

    Attributes:
      proxies: Tasks, in the order in which `ProxyRun.proxy` counts.
      seed: Seed of the search, from which the keys of runs are folded.
      capacity: Capacity of the interpreter; programs beyond it are compiled, each by itself.
      objective: Score of the runs, in the form that `objectives.load` takes.
      lanes: Number of interpreted runs trained in one call, which as many threads share
        (`lanes.py`); 1 trains each by itself.
    """

    proxies: tuple[ProxyConfig, ...]
    seed: int = 0
    capacity: encode.Capacity = field(default_factory=encode.Capacity)
    objective: str = objectives.DEFAULT
    lanes: int = 1
