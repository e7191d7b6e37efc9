"""Candidates and suites from the names that a user gives, and `veldt.evaluate`.

A candidate may be named by anything that makes an optimizer: a baseline (`muon`), a shipped rule
(`adabelief`) or learned optimizer, a rule file or an export of one, a weight file (`.npz`), the run
directory of a search (`RUN#ID`: an entry of its hall of fame) or of meta-training, or
`module:function`. A suite is a shipped one's name, a YAML file, or
`module:factory`.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from veldt import config as config_lib
from veldt import errors
from veldt.learned_opt import candidate as learned_candidates
from veldt.learned_opt import shipped
from veldt.search import rule_sources
from veldt.search.export import program_candidate
from veldt.search.program import Program
from veldt.search.storage import best_rule
from veldt.tasks import suites
from veldt.tasks.benchmark import evaluate as evaluate_lib
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.protocol.candidates import (
    DEFAULT_CENTRE,
    Candidate,
    factory_candidate,
    rate_grid,
)
from veldt.tasks.benchmark.report import benchmark_figures, benchmark_page
from veldt.tasks.benchmark.runs import comparison_runs
from veldt.tasks.benchmark.scores import stored_results
from veldt.tasks.benchmark.scores.results import Results
from veldt.tasks.common import errors as task_errors
from veldt.tasks.common import spelling
from veldt.tasks.common.disk import atomic_files, run_directory
from veldt.tasks.common.user_code import imports

RESULTS_FILE = "results.json"
PAGE_FILE = "report.html"

AnyCandidate = Candidate | Program | str | Path | Callable[..., Any]


def evaluate(
    candidates: AnyCandidate | Iterable[AnyCandidate] | Mapping[str, AnyCandidate],
    suite: str | Path | suites.Suite = "small",
    *,
    out: str | Path | None = None,
    watcher: comparison_runs.Watcher | None = None,
    **settings: Any,
) -> Results:
    """Compare optimizers with tuned Adam over a suite of tasks: `veldt.evaluate`.

    Args:
      candidates: Candidates to compare: the name of a baseline, a shipped rule or a shipped learned
          optimizer, a rule or weight file, a run directory, "module:function", a `Program`, an
          Optax factory (`optax.adabelief`), or a `Candidate`; one or several. In a mapping, the
          keys are the names in the results.
      suite: Name of a shipped suite, a YAML file, "module:factory", or a `Suite`.
      out: Folder of finished runs and of the report: the same call continues there. Nothing is
          kept if None.
      watcher: Display of the progress; None for none.
      **settings: Fields of `EvaluateConfig`: schedules, seed, rates, step_times, baselines, pool.

    Raises:
      TaskError: A candidate or task cannot be used.
      SearchError: A rule file or run directory cannot be used.
      UsageError: A name is unknown.
      ConfigError: A suite file cannot be used.
    """
    if isinstance(candidates, Mapping):
        found = [as_candidate(value, name) for name, value in candidates.items()]
    elif isinstance(candidates, Iterable) and not isinstance(candidates, str):
        found = [as_candidate(value) for value in candidates]
    else:
        found = [as_candidate(candidates)]
    the_suite = suite if isinstance(suite, suites.Suite) else load_suite(suite)
    config = evaluate_lib.EvaluateConfig(**settings)
    if out is not None:
        results = evaluate_lib.evaluate(the_suite, found, config, Path(out), watcher)
        write_results(results, Path(out))
        return results
    with tempfile.TemporaryDirectory() as folder:
        return evaluate_lib.evaluate(the_suite, found, config, Path(folder), watcher)


def as_candidate(given: AnyCandidate, name: str | None = None) -> Candidate:
    """Return the candidate of a name or an object, renamed if a name is given."""
    match given:
        case Candidate():
            found = given
        case Program():
            found = program_candidate.ProgramCandidate(given.name, given)
        case str() | Path():
            found = load_candidate(given)
        case _:
            found = _of_function(given)
    return found if name is None else found.renamed(name)


def load_candidate(source: str | Path) -> Candidate:
    """Return the candidate of a name, a path or "module:function".

    Raises:
      UsageError: Nothing has this name.
      TaskError, SearchError: It cannot be used.
    """
    text, path = str(source), Path(source)
    if path.suffix == shipped.SUFFIX or run_directory.kind_of(path) == "meta-train":
        return learned_candidates.learned_candidate(path)
    if (
        text not in rule_sources.RULE_NAMES
        and (found := rule_sources.read_found(source)) is not None
    ):
        return _found_candidate(path.resolve().name if path.is_dir() else path.stem, found)
    if path.suffix == ".py":
        return program_candidate.ProgramCandidate(path.stem, rule_sources.load_rule(text))
    if text in baselines.BASELINES:
        return baselines.BASELINES[text]
    if text in rule_sources.DISCOVERED:
        return _found_candidate(text, rule_sources.read_discovered(text))
    if text in rule_sources.RULE_NAMES:
        centre = 1.0 if text in rule_sources.AT_RATE_ONE else DEFAULT_CENTRE
        rates = rate_grid(centre)
        return program_candidate.ProgramCandidate(text, rule_sources.load_rule(text), rates)
    if text in shipped.names():
        return learned_candidates.learned_candidate(text)
    if ":" in text:
        return factory_candidate(text)
    known = sorted({*baselines.BASELINES, *rule_sources.RULE_NAMES, *shipped.names()})
    raise errors.UsageError(
        f"there is no optimizer {text!r}.{spelling.question(text, known)} Known: "
        f"{', '.join(known)}; or give a rule or weight file, a run directory or module:function"
    )


def load_suite(source: str | Path) -> suites.Suite:
    """Return the suite of a name, a YAML file or "module:factory".

    Raises:
      TaskError: There is none of this name, or it cannot be used.
      ConfigError: The file cannot be used.
    """
    text, path = str(source), Path(source)
    if path.suffix in (".yaml", ".yml"):
        try:
            return config_lib.load_config(suites.Suite, path)
        except task_errors.TaskError as error:
            raise task_errors.ConfigError(f"{path}: {error}") from None
    if ":" not in text:
        return suites.load_suite(text)
    suite = imports.call("suite", text, imports.load_object("suite", text))
    if not isinstance(suite, suites.Suite):
        raise task_errors.TaskError(
            f"suite {text!r} returned {type(suite).__name__}, not a veldt.tasks.suites.Suite"
        )
    return suite


def write_results(results: Results, folder: Path) -> Sequence[Path]:
    """Write the files of a comparison, data, one page and figures, and return them."""
    atomic_files.make_folder(folder)
    data, html = folder / RESULTS_FILE, folder / PAGE_FILE
    atomic_files.write_bytes(data, results.to_json().encode())
    _draw(results, folder)
    return data, html


def write_report(folder: Path) -> Path:
    """Draw the page and figures of a stored evaluation again, and return the page.

    Raises:
      TaskError: The stored results are damaged, or of another version.
    """
    _draw(stored_results.read(folder / RESULTS_FILE), folder)
    return folder / PAGE_FILE


def _draw(results: Results, folder: Path) -> None:
    benchmark_page.write_page(results, folder / PAGE_FILE)
    benchmark_figures.write_figures(results, folder)


def _found_candidate(name: str, found: best_rule.Best) -> Candidate:
    """Return the rule of a search, with rates around its own, and without the tasks it has seen."""
    rates = rate_grid(found.learning_rate)
    return program_candidate.ProgramCandidate(name, found.program, rates, found.proxies)


def _of_function(function: Callable[..., Any]) -> Candidate:
    """Return the candidate of a factory that is given as a function."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", "")
    reference = f"{module}:{name}"
    if not callable(function) or module is None or not name.isidentifier():
        raise task_errors.TaskError(
            f"{function!r} is no factory that a worker could import: write a function at the top "
            'of a module and give it, or "module:function"'
        )
    if imports.load_object("optimizer", reference) is not function:
        raise task_errors.TaskError(f"{reference} is not the function that was given")
    return factory_candidate(reference).renamed(name)
