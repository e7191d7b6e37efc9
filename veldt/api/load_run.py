"""`veldt.load_run`: the result of any run, from its directory."""

from pathlib import Path

from veldt import errors, evaluation
from veldt.api.discovery import Discovery
from veldt.api.trained_optimizer import TrainedOptimizer
from veldt.api.tuned_run import TunedRun
from veldt.tasks.benchmark.scores import stored_results
from veldt.tasks.benchmark.scores.results import Results
from veldt.tasks.common import spelling
from veldt.tasks.common.disk import run_directory


def load_run(run_dir: str | Path) -> Discovery | TrainedOptimizer | TunedRun | Results:
    """Return the result of a run: of a search, a meta-training, a tuning or an evaluation.

    A run that was interrupted, or still goes on, gives what it has so far; an evaluation has
    results at its end alone.

    Args:
      run_dir: Directory of the run.

    Raises:
      UsageError: There is no such directory, or it holds no run.
      VeldtError: The run has no result yet, or a file of it is damaged.
    """
    path = Path(run_dir)
    match run_directory.kind_of(path):
        case "search":
            return Discovery.read(path)
        case "meta-train":
            return TrainedOptimizer.read(path)
        case "tune":
            return TunedRun.read(path)
        case "evaluate":
            return stored_results.read(path / evaluation.RESULTS_FILE)
    if path.is_dir():
        raise errors.UsageError(f"{str(path)!r} holds no run")
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    hint = spelling.question(path.name, (each.name for each in beside if each.is_dir()))
    raise errors.UsageError(f"there is no run directory {str(path)!r}.{hint}".rstrip("."))
