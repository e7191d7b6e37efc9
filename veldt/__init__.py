"""veldt: discover training algorithms.

    import veldt

    program = veldt.load_rule("lion")
    tx = program.as_optax(learning_rate=1e-4)  # a plain optax.GradientTransformation
    curve = veldt.train(veldt.load_task("digits_mlp"), tx, num_steps=500, seed=0)
    results = veldt.evaluate(["lion", program], suite="smoke")

    task = veldt.task(lambda rngs: MyModel(rngs), "cross_entropy", (x, y))
    found = veldt.discover([task, "digits_mlp"], time_limit_s=120)
    tx = found.best.as_optax(1e-2)

The names below are loaded when first used, so that `import veldt` costs little; the packages
(`veldt.tasks`, `veldt.search`, ...) hold the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veldt.api.discover import discover
    from veldt.api.discovery import Discovery
    from veldt.api.found_rule import FoundRule
    from veldt.api.load_run import load_run
    from veldt.api.meta_train import meta_train
    from veldt.api.trained_optimizer import TrainedOptimizer
    from veldt.api.tuned_run import TunedRun
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
    from veldt.tasks.own_task.array_task import task
    from veldt.tasks.registry import load_task

__version__ = "0.5.0"

__all__ = [
    "Discovery",
    "FoundRule",
    "FunctionTraining",
    "Program",
    "Roles",
    "Task",
    "TaskFamily",
    "TaskTraining",
    "TrainedOptimizer",
    "TunedRun",
    "__version__",
    "discover",
    "evaluate",
    "learned_optimizer",
    "load_rule",
    "load_run",
    "load_task",
    "loss_in_state",
    "meta_train",
    "metagradient",
    "task",
    "train",
    "tune",
    "wrappers",
]

_HOMES = {
    "Discovery": "veldt.api.discovery",
    "FoundRule": "veldt.api.found_rule",
    "FunctionTraining": "veldt.meta.replay.function_training",
    "Program": "veldt.search.program",
    "Roles": "veldt.search.language.roles",
    "Task": "veldt.tasks.base",
    "TaskFamily": "veldt.tasks.base",
    "TaskTraining": "veldt.meta.replay.task_training",
    "TrainedOptimizer": "veldt.api.trained_optimizer",
    "TunedRun": "veldt.api.tuned_run",
    "discover": "veldt.api.discover",
    "evaluate": "veldt.evaluation",
    "learned_optimizer": "veldt.learned_opt.shipped",
    "load_rule": "veldt.search.rule_sources",
    "load_run": "veldt.api.load_run",
    "load_task": "veldt.tasks.registry",
    "loss_in_state": "veldt.learned_opt.loss_in_state",
    "meta_train": "veldt.api.meta_train",
    "metagradient": "veldt.meta.replay.api",
    "task": "veldt.tasks.own_task.array_task",
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
