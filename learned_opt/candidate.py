"""A learned optimizer with its weights as the benchmark's candidate."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import optax

from veldt.learned_opt import shipped, weight_files
from veldt.tasks.benchmark.protocol.candidates import Candidate


@final
@dataclass(frozen=True, slots=True)
class LearnedCandidate(Candidate):
    """Weights and options, with one setting: nothing is tuned.

    It carries the weight file's content, so that it runs on another machine, and goes on with the
    same weights when a meta-training run writes new ones.

    Attributes:
      name: name in tables.
      content: content of the weight file.
      options: keyword arguments of the architecture's `as_optax`.
      rates: factors of the updates; 1 alone, unless asked otherwise.
      tasks: names of the tasks that the weights were trained on.
    """

    name: str
    content: bytes = dataclasses.field(repr=False)
    options: tuple[tuple[str, Any], ...] = ()
    rates: tuple[float, ...] = (1.0,)
    tasks: frozenset[str] = frozenset()

    def make_tx(self, learning_rate: Any, num_steps: int) -> optax.GradientTransformation:
        loaded = weight_files.from_bytes(self.content, self.name)
        tx = loaded.as_optax(num_steps, **dict(self.options))
        if callable(learning_rate):
            return optax.chain(tx, optax.scale_by_schedule(learning_rate))
        return optax.chain(tx, optax.scale(learning_rate))

    @property
    def selected_on(self) -> frozenset[str]:
        return self.tasks

    @property
    def identity(self) -> str:
        options = ",".join(f"{key}={value!r}" for key, value in sorted(self.options))
        return f"weights {hashlib.sha256(self.content).hexdigest()}({options})"


def learned_candidate(source: str | Path, **options: Any) -> LearnedCandidate:
    """Return the candidate that weights make.

    Args:
      source: A shipped name, the path of a weight file, or a meta-training run's directory.
      **options: Options of `shipped.learned_optimizer`.

    Raises:
      WeightsError: There are no such weights, or the file is damaged or something else.
    """
    content = weight_files.read_bytes(shipped.find(source))
    loaded = weight_files.from_bytes(content, str(source))
    return LearnedCandidate(
        shipped.name_of(source), content, tuple(options.items()), tasks=loaded.tasks
    )
