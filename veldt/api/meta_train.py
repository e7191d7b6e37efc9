"""`veldt.meta_train`: what `veldt meta-train` does, from Python or a notebook."""

from pathlib import Path
from typing import Any, Final

from veldt.api import interruptible, linked
from veldt.api.keyword_config import Call
from veldt.api.trained_optimizer import TrainedOptimizer
from veldt.errors import UsageError
from veldt.meta.train import run_meta_training
from veldt.meta.train.config import MetaTrainConfig
from veldt.meta.train.training_view import TrainingView
from veldt.tasks.common.progress.display import Display

CALL: Final = Call(
    name="meta_train",
    kind="meta-train",
    config_class=MetaTrainConfig,
    arguments=("config", "run_dir", "resume", "progress"),
    task_lists=("meta_validation",),
)
_NUM_STEPS: Final = 200  # Of a task of meta-validation that is given without a number.


def meta_train(
    config: str | Path | MetaTrainConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    **fields: Any,
) -> TrainedOptimizer:
    """Meta-train a learned optimizer.

        learned = veldt.meta_train("celo2", run_dir="runs/celo2", seed=1)
        tx = learned.as_optax(num_steps=1000)

    Args:
      config: Name or path of a config, or a `MetaTrainConfig`, whose fields are those not given
        here; None takes that of the run to be continued.
      run_dir: Directory of the run, from which it can be continued and read again. None takes a
        temporary one, which is removed with the result.
      resume: Whether to continue the run that is there.
      progress: Whether the progress is shown.
      **fields: Fields of `MetaTrainConfig`, nested ones as mappings or with dots. Tasks of
        `meta_validation` may be objects, alone or in a pair with the number of steps (else 200).

    Raises:
      ConfigError: A keyword is unknown, or a value cannot be used.
      UsageError: No config is given, and no run is continued.
      FileError: The run directory cannot be used, or holds another run.
      MetaTrainError: A gradient cannot be computed.
      TaskError, LearnedOptError: A task, an architecture or weights cannot be used.
      KeyboardInterrupt: Ctrl-C, or a notebook's stop button. The progress is stored; with
        `resume=True` the run goes on, and `veldt.load_run` reads what there is.
    """
    source: Any = config
    if source is None and resume and run_dir is not None:
        source = CALL.stored(Path(run_dir))
    if source is None and not {"architecture", "phases"} <= fields.keys():
        raise UsageError(
            'meta_train() needs a config: a name such as "celo2" (`veldt list configs`), a YAML '
            "file, a MetaTrainConfig, or at least the fields architecture and phases"
        )
    settings, objects = CALL.config({} if source is None else source, fields, _NUM_STEPS)

    def work(path: Path, display: Display) -> TrainedOptimizer:
        if isinstance(source, str | Path):
            for line in linked.keyword_notes("meta-train", settings, str(source), fields):
                display.note(line)
        view = TrainingView(display)
        run_meta_training.run_meta_training(settings, path, resume=resume, view=view, tasks=objects)
        return TrainedOptimizer.read(path)

    return interruptible.run(CALL.name, run_dir, work, progress=progress)
