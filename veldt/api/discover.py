"""`veldt.discover`: what `veldt search` does, from Python or a notebook."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from veldt.api import interruptible, linked
from veldt.api.discovery import Discovery
from veldt.api.keyword_config import AnyTask, Call
from veldt.search.config.search_config import SearchConfig
from veldt.search.run import run_search
from veldt.search.run.search_view import SearchView
from veldt.tasks.common.progress.display import Display

DEFAULT_CONFIG: Final = "quickstart"
CALL: Final = Call(
    name="discover",
    kind="search",
    config_class=SearchConfig,
    arguments=("tasks", "config", "num_steps", "run_dir", "resume", "progress"),
    task_lists=("tasks", "meta_validation"),
)


def discover(
    tasks: AnyTask | Sequence[AnyTask] | None = None,
    *,
    config: str | Path | SearchConfig | None = None,
    num_steps: int = 200,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    **fields: Any,
) -> Discovery:
    """Search for an update rule.

        found = veldt.discover([my_task, "digits_mlp"], time_limit_s=60, seed=1)
        tx = found.best.as_optax(1e-2)

    Args:
      tasks: Tasks to search on: names, "module:factory" or task objects, each alone or in a pair
        with its number of steps; None takes those of the config. With tasks given, there is no
        meta-validation but what `meta_validation` names.
      config: Name or path of a config, or a `SearchConfig`, whose fields are those not given here.
        None takes that of the run to be continued, or else "quickstart": a search of a few minutes.
      num_steps: Number of training steps on a task that is given without one.
      run_dir: Directory of the run, from which it can be continued and read again. None takes a
        temporary one, which is removed with the result.
      resume: Whether to continue the run that is there. Task objects are given again, the same
        ones; other fields too, or none of them.
      progress: Whether the progress is shown.
      **fields: Fields of `SearchConfig`, as in a config: `seed=1`, `max_evaluations=500`,
        `meta_validation=[]`, nested ones as mappings, `pool={"num_workers": 2}`, or with dots,
        `**{"pool.num_workers": 2}`.

    Raises:
      ConfigError: A keyword is unknown, or a value cannot be used.
      TaskError: A task cannot be used, or not be sent to Ray's workers.
      FileError: The run directory cannot be used, or holds another run.
      SearchError: The store cannot be used, or the initial rule cannot be trained.
      KeyboardInterrupt: Ctrl-C, or a notebook's stop button. What was reported is stored; with
        `resume=True` the run goes on, and `veldt.load_run` reads what there is.
    """
    source: Any = config
    if source is None and resume and run_dir is not None:
        source = CALL.stored(Path(run_dir))
    source = DEFAULT_CONFIG if source is None else source
    # The config's meta-validation goes with the config's tasks.
    given = fields if tasks is None else {"tasks": tasks, "meta_validation": [], **fields}
    settings, objects = CALL.config(source, given, num_steps)

    def work(path: Path, display: Display) -> Discovery:
        if isinstance(source, str | Path):
            for line in linked.keyword_notes("search", settings, str(source), given):
                display.note(line)
        view = SearchView(display)
        run_search.run_search(settings, path, resume=resume, view=view, tasks=objects)
        return Discovery.read(path)

    return interruptible.run(CALL.name, run_dir, work, progress=progress)
