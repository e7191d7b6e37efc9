"""What candidates are trained on, and what a worker that trains them is built from."""

from dataclasses import dataclass, field
from typing import final

from veldt.search import objectives
from veldt.search.runtime import encode


@final
@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """A task that candidates are trained on.

    Attributes:
      task: a shipped task's name, or `module:factory`.
      num_steps: training steps of one run.
      num_chunks: validation checks per run, evenly spaced; `num_steps` must be a multiple of it.
    """

    task: str
    num_steps: int
    num_chunks: int = 5

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.num_chunks < 1 or self.num_steps % self.num_chunks:
            raise ValueError(
                f"num_steps ({self.num_steps}) must be a positive multiple of num_chunks "
                f"({self.num_chunks})"
            )


@final
@dataclass(frozen=True, slots=True)
class EvaluatorConfig:
    """What a worker needs to be built.

    Attributes:
      proxies: the tasks, in the order in which `ProxyRun.proxy` counts.
      seed: the search's seed; runs' keys are folded from it.
      capacity: of the interpreter; programs beyond it are compiled, each by itself.
      objective: what runs are scored by, as `objectives.load` takes it.
      lanes: interpreted runs trained in one call, which as many threads share (`lanes.py`); 1
        trains each by itself.
    """

    proxies: tuple[ProxyConfig, ...]
    seed: int = 0
    capacity: encode.Capacity = field(default_factory=encode.Capacity)
    objective: str = objectives.DEFAULT
    lanes: int = 1
