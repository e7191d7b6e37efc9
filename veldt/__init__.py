"""veldt: discover training algorithms.

    import veldt

    program = veldt.load_rule("lion")
    tx = program.as_optax(learning_rate=1e-4)  # a plain optax.GradientTransformation
    curve = veldt.train(veldt.load_task("digits_mlp"), tx, num_steps=500, seed=0)
    results = veldt.evaluate(["lion", program], suite="smoke")

The names below are loaded when first used, so that `import veldt` costs little; the packages
(`veldt.tasks`, `veldt.search`, ...) hold the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veldt.evaluation import evaluate
    from veldt.learned_opt import wrappers
    from veldt.learned_opt.loss_in_state import loss_in_state
    from veldt.learned_opt.shipped import learned_optimizer
    from veldt.meta.replay.api import metagradient
    from veldt.meta.replay.function_training import FunctionTraining
    from veldt.meta.replay.task_training import TaskTraining
    from veldt.meta.tune.descent import tune
    from veldt.search.language.roles import Roles
    from veldt.search.program import Program
    from veldt.search.rule_sources import load_rule
    from veldt.tasks.base import Task, TaskFamily
    from veldt.tasks.inner_loop.train import train
    from veldt.tasks.registry import load_task

__version__ = "0.5.0"

__all__ = [
    "FunctionTraining",
    "Program",
    "Roles",
    "Task",
    "TaskFamily",
    "TaskTraining",
    "__version__",
    "evaluate",
    "learned_optimizer",
    "load_rule",
    "load_task",
    "loss_in_state",
    "metagradient",
    "train",
    "tune",
    "wrappers",
]

_HOMES = {
    "FunctionTraining": "veldt.meta.replay.function_training",
    "Program": "veldt.search.program",
    "Roles": "veldt.search.language.roles",
    "Task": "veldt.tasks.base",
    "TaskFamily": "veldt.tasks.base",
    "TaskTraining": "veldt.meta.replay.task_training",
    "evaluate": "veldt.evaluation",
    "learned_optimizer": "veldt.learned_opt.shipped",
    "load_rule": "veldt.search.rule_sources",
    "load_task": "veldt.tasks.registry",
    "loss_in_state": "veldt.learned_opt.loss_in_state",
    "metagradient": "veldt.meta.replay.api",
    "train": "veldt.tasks.inner_loop.train",
    "tune": "veldt.meta.tune.descent",
    "wrappers": "veldt.learned_opt.wrappers",
}
_MODULES = {"wrappers"}
"""Names that are modules, and not what a module holds."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'veldt' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    home = importlib.import_module(_HOMES[name])
    value = home if name in _MODULES else getattr(home, name)
    globals()[name] = value  # The next access does not come here.
    return value


def __dir__() -> list[str]:
    return sorted(__all__)  # Not what this module imports for itself.
