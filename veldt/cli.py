"""The command line: `veldt COMMAND ...`.

Each command is one handler that imports what it needs, so that `veldt --help` and `veldt list` do
not wait for JAX. Exit codes: 0 success, 1 failure, 2 a command line or a config that cannot be
used (an unknown name, for example), 130 Ctrl-C, 143 SIGTERM. An expected failure is one line on
stderr; VELDT_DEBUG=1 shows its traceback.
"""

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import veldt
from veldt import catalogue
from veldt import config as config_lib
from veldt import words as words_lib
from veldt.api import linked
from veldt.errors import UsageError
from veldt.tasks.common import errors, spelling, stopping
from veldt.tasks.common.user_code import error_origin

if TYPE_CHECKING:
    from veldt.search.config import search_config
    from veldt.tasks.pool import config as pool_config

OK, FAILURE, USAGE = 0, errors.FAILURE, errors.USAGE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
      argv: Words after `veldt`; None takes the process's own.

    Returns:
      Exit code.
    """
    with stopping.Stopper() as stopper:
        try:
            code = _run(list(sys.argv[1:] if argv is None else argv), stopper)
        except KeyboardInterrupt:
            stopper.settle()
            with contextlib.suppress(OSError):  # The terminal may be gone.
                print(stopper.line(), file=sys.stderr, flush=True)
                sys.stdout.flush()
            code = stopper.exit_code
            if argv is None:  # Threads that still compile are not waited for.
                stopping.end_process(code)
    return code


def _run(words: list[str], stopper: stopping.Stopper) -> int:
    try:
        _dispatch(words, stopper)
        return OK
    except BrokenPipeError:  # `veldt list rules | head -1` closed our stdout: nothing to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except SystemExit as error:  # argparse, after printing help or the version.
        if (theirs := error_origin.describe(error)) is not None:
            print(f"error: your code raised {theirs}", file=sys.stderr)
            return FAILURE
        return error.code if isinstance(error.code, int) else FAILURE
    except Exception as error:
        if stopper.signum is not None and isinstance(error, _pool_error()):
            raise KeyboardInterrupt from error  # The cluster was asked to end as well.
        code, text = _exit_code(error), f"{error}"
        if code is None and (theirs := error_origin.describe(error)) is not None:
            code, text = FAILURE, f"your code raised {theirs}"
        if code is None or os.environ.get("VELDT_DEBUG") == "1":
            raise
        print(f"error: {text}", file=sys.stderr)
        return code


def _exit_code(error: Exception) -> int | None:
    """Return the code of an expected error; None for a defect, whose traceback is wanted."""
    if isinstance(error, errors.VeldtError):
        return error.exit_code
    return FAILURE if isinstance(error, OSError) else None


def _pool_error() -> type[Exception]:
    from veldt.tasks.pool import base

    return base.PoolError


def _dispatch(words: list[str], stopper: stopping.Stopper) -> None:
    parser = words_lib.Parser(
        prog="veldt",
        description="Discover training algorithms.",
        epilog="`veldt COMMAND --help` shows more. CONFIG is a YAML path or a name in `veldt list "
        "configs`; any of its fields is set by --field value.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"veldt {veldt.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", parser_class=words_lib.Parser)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            allow_abbrev=False,
            add_help=command.config_class is None,
        )
        command.add_arguments(subparser)
        if command.config_class is not None:
            subparser.add_argument(
                *("-h", "--help"),
                action=words_lib.HelpWithFields,
                command=name,
                help="show this message and the config's fields",
            )
    if not words:
        parser.print_help()
        return
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise UsageError(
            f"there is no command {words[0]!r}.{spelling.question(words[0], COMMANDS)} "
            f"Commands: {', '.join(COMMANDS)}"
        )
    chosen = COMMANDS.get(words[0])
    overrides: list[str] = []
    if chosen is not None and chosen.config_class is not None:
        words, overrides = words_lib.split_overrides(words, chosen.own_options)
    args = parser.parse_args(words)
    if chosen is None:
        raise UsageError(f"the command comes first. Commands: {', '.join(COMMANDS)}")
    if chosen.config_class is not None:
        words_lib.check_overrides(chosen.config_class(), overrides, chosen.own_options)
    args.stopper = stopper
    chosen.run(args, overrides)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML path or a shipped config's name")
    parser.add_argument(
        "--run-dir",
        type=Path,
        help="where the run is kept (runs/CONFIG, with the name of the tasks where they are given)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run kept there")


def _search_config() -> type:
    from veldt.search.config import search_config

    return search_config.SearchConfig


def _search(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.search.config import search_config
    from veldt.search.run import results_table, search_view
    from veldt.search.run import run_search as run
    from veldt.tasks.common.progress import choose

    settings = config_lib.load_config(search_config.SearchConfig, args.config, overrides)
    if settings.llm is not None and settings.llm.show_prompt:
        _show_prompt(settings)
        return
    run_dir = _place("search", settings, args, overrides)
    _leave_accelerators_to_workers(settings.workers)
    display = choose.make_display()
    view = search_view.SearchView(display)
    again = _again("search", args, run_dir, overrides)
    with args.stopper.showing(display, f"all reported results are stored. To go on: {again}"):
        result = run.run_search(settings, run_dir, resume=args.resume, view=view)
    results_table.print_results(result.entries, run_dir, config=settings)


def _show_prompt(settings: "search_config.SearchConfig") -> None:
    """Print the first prompt of a search with language models, before anything is trained."""
    from veldt.search.evolution import suggestions

    prompt = suggestions.first_prompt(settings)
    print(f"{prompt.system}\n{prompt.user}", end="")


def _place(command: str, settings: Any, args: argparse.Namespace, overrides: Sequence[str]) -> Path:
    """Return where a run is kept. Print notes on linked fields, and on where the run is kept."""
    for line in linked.notes(command, settings, args.config, overrides):
        print(line, file=sys.stderr)
    if args.run_dir is not None:
        return Path(args.run_dir)
    run_dir = linked.run_dir(command, settings, args.config, overrides)
    if run_dir.name != Path(args.config).stem:
        print(f"note: the run is kept in {run_dir} (--run-dir changes it)", file=sys.stderr)
    return run_dir


def _leave_accelerators_to_workers(settings: "pool_config.PoolConfig") -> None:
    """Keep this process, which trains nothing, on the CPU if workers are other processes.

    JAX would take most of a GPU's memory here for a few small arrays.
    """
    from veldt.tasks.pool import devices

    devices.keep_driver_on_cpu(settings)


def _meta_train_config() -> type:
    from veldt.meta.train import config

    return config.MetaTrainConfig


def _meta_train(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.meta.train import run_meta_training as run
    from veldt.meta.train import training_view
    from veldt.tasks.common import compiling
    from veldt.tasks.common.progress import choose

    settings: Any = config_lib.load_config(_meta_train_config(), args.config, overrides)
    run_dir = _place("meta-train", settings, args, overrides)
    _leave_accelerators_to_workers(settings.pool)
    compiling.keep_compiled()
    display = choose.make_display()
    view = training_view.TrainingView(display)
    again = _again("meta-train", args, run_dir, overrides)
    with args.stopper.showing(display, f"the progress so far is stored. To go on: {again}"):
        result = run.run_meta_training(settings, run_dir, resume=args.resume, view=view)
    training_view.print_result(result.progress, run_dir)


def _tune_config() -> type:
    from veldt.meta.tune import config

    return config.TuneConfig


def _tune(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.meta.tune import run_tuning as run
    from veldt.meta.tune import tuning_view
    from veldt.tasks.common import compiling
    from veldt.tasks.common.progress import choose

    settings: Any = config_lib.load_config(_tune_config(), args.config, overrides)
    run_dir = _place("tune", settings, args, overrides)
    _leave_accelerators_to_workers(settings.pool)
    compiling.keep_compiled()
    display = choose.make_display()
    view = tuning_view.TuningView(display)
    again = _again("tune", args, run_dir, overrides)
    with args.stopper.showing(display, f"the progress so far is stored. To go on: {again}"):
        result = run.run_tuning(settings, run_dir, resume=args.resume, view=view)
    tuning_view.print_result(settings, result.progress, result.numbers, run_dir, result.compared)


def _again(command: str, args: argparse.Namespace, run_dir: Path, overrides: Sequence[str]) -> str:
    """Return the command line that resumes a run."""
    words = ["veldt", command, args.config, "--run-dir", str(run_dir), *overrides, "--resume"]
    return shlex.join(words)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "rules",
        metavar="RULE",
        nargs="+",
        help="a baseline's or a shipped rule's name, a rule file or an export, a run directory "
        "(RUN#ID: an entry of its hall of fame), or module:function that makes an Optax transform",
    )
    parser.add_argument(
        "--suite", default="small", help="a suite's name, a YAML file, or module:factory (small)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where results and finished runs go (runs/SUITE)"
    )


def _evaluate_config() -> type:
    from veldt.tasks.benchmark import evaluate

    return evaluate.EvaluateConfig


def _evaluate(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt import evaluation
    from veldt.tasks.benchmark import comparison_table, evaluate
    from veldt.tasks.common.progress import choose

    settings = config_lib.make_config(evaluate.EvaluateConfig, overrides)
    _leave_accelerators_to_workers(settings.pool)
    suite = evaluation.load_suite(args.suite)
    candidates = [evaluation.load_candidate(rule) for rule in args.rules]
    folder = args.out or Path("runs") / f"evaluate_{suite.name}"
    display = choose.make_display()
    words = ["veldt", "evaluate", *args.rules, "--suite", args.suite, "--out", str(folder)]
    again = shlex.join([*words, *overrides])
    with args.stopper.showing(display, f"finished runs are stored. To go on: {again}"):
        results = evaluate.evaluate(suite, candidates, settings, folder, display)
    comparison_table.print_results(results)
    for path in evaluation.write_results(results, folder):
        print(f"wrote {path}")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a rule's name or file, a run directory (its best), or RUN#ID: any entry of its "
        "hall of fame",
    )
    parser.add_argument(
        "--to",
        default="optax",
        metavar="FORMAT",
        help="optax, torch or latex, which are files, or optax-contrib, a folder (optax)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where it goes: a file, or a new folder"
    )
    parser.add_argument(
        "--package",
        type=Path,
        metavar="DIR",
        help="write a pip-installable package of the Optax export there instead",
    )


def _export(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.search import rule_sources
    from veldt.search.export import formats

    try:
        write = formats.writer(args.to)
    except errors.UnknownNameError as error:
        raise UsageError(str(error)) from error
    if (args.output is None) == (args.package is None):
        raise UsageError("the following arguments are required: -o/--output or --package, not both")
    if args.package is not None:
        write = formats.load(formats.PACKAGE)
    found = rule_sources.read_found(args.source)
    if found is not None:
        text = write(found.program, learning_rate=found.learning_rate, provenance=found.provenance)
    else:
        text = write(veldt.load_rule(args.source))
    for path in formats.write(text, args.output or args.package):
        print(f"wrote {path}")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_dir",
        metavar="RUN_DIR",
        type=Path,
        help="a run's or an evaluation's directory",
    )


def _report(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    run_dir: Path = args.run_dir
    if not run_dir.is_dir():
        beside = run_dir.parent.iterdir() if run_dir.parent.is_dir() else ()
        hint = spelling.question(run_dir.name, (path.name for path in beside if path.is_dir()))
        raise UsageError(f"there is no run directory {str(run_dir)!r}.{hint}".rstrip("."))
    print(f"wrote {_report_writer(run_dir)(run_dir)}")


def _report_writer(run_dir: Path) -> Callable[[Path], Path]:
    """Return the function that draws the report of the kind of run in a directory."""
    from veldt.tasks.common.disk import run_directory

    match run_directory.kind_of(run_dir):
        case "evaluate":
            from veldt import evaluation

            return evaluation.write_report
        case "meta-train":
            from veldt.meta.train import report as meta_report

            return meta_report.write_report
        case "tune":
            from veldt.meta.tune import report as tune_report

            return tune_report.write_report
        case _:  # This one reports that there is no run, if there is none.
            from veldt.search.report import search_report

            return search_report.write_report


# A grammar, in GBNF, to hold a language model to programs that a search can read.
_GRAMMAR = "grammar"


def _add_card(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a meta-training's directory, .npz or name")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder")
    parser.add_argument("--licence", help="of the weights, an SPDX name such as Apache-2.0")


def _card(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.learned_opt import model_card

    del overrides
    print(f"wrote {model_card.write(args.source, args.output, args.licence)}")


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT", help=", ".join([*catalogue.LISTS, _GRAMMAR]))
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="of the grammar: a search's config, with its instructions and limits (quickstart)",
    )


def _list(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    lists = catalogue.LISTS
    if args.what == _GRAMMAR:
        print(_grammar(args.config or "quickstart"), end="")
        return
    if args.what not in lists:
        known = [*lists, _GRAMMAR]
        hint = spelling.question(args.what, known)
        raise UsageError(f"cannot list {args.what!r}.{hint} Lists: {', '.join(known)}")
    if args.config is not None:
        raise UsageError(f"only `veldt list {_GRAMMAR}` takes a config, here {args.config!r}")
    rows = lists[args.what]()
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        print(f"{row.name:{width}}  {row.description}".rstrip())


def _grammar(config: str) -> str:
    from veldt.search.config import search_config
    from veldt.search.evolution import founders, suggestions

    settings = config_lib.load_config(search_config.SearchConfig, config)
    return suggestions.limits_of(settings, founders.load(settings)).grammar()


@final
@dataclasses.dataclass(frozen=True)
class _Command:
    """One command.

    Attributes:
      summary: One line for `veldt --help`.
      add_arguments: Function that declares the command's words to argparse.
      run: Function that gets the parsed words and the overrides of the config.
      config_class: Function that imports and returns the class of CONFIG; None if it takes none.
      own_options: Options of a command with a config that are not fields of it, each with the
        number of words that follow.
    """

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Sequence[str]], None]
    config_class: Callable[[], type] | None = None
    own_options: Mapping[str, int] = dataclasses.field(default_factory=dict)


_RUN_OPTIONS = {"--run-dir": 1, "--resume": 0, "--help": 0}
_EVALUATE_OPTIONS = {"--suite": 1, "--out": 1, "--help": 0}

COMMANDS: dict[str, _Command] = {
    "search": _Command(
        "search for an update rule", _add_run, _search, _search_config, _RUN_OPTIONS
    ),
    "meta-train": _Command(
        "meta-train a learned optimizer", _add_run, _meta_train, _meta_train_config, _RUN_OPTIONS
    ),
    "tune": _Command(
        "learn a schedule or hyperparameters", _add_run, _tune, _tune_config, _RUN_OPTIONS
    ),
    "evaluate": _Command(
        "benchmark optimizers against tuned baselines",
        _add_evaluate,
        _evaluate,
        _evaluate_config,
        _EVALUATE_OPTIONS,
    ),
    "export": _Command("write a rule as a stand-alone source file", _add_export, _export),
    "report": _Command(
        "write a run's or an evaluation's report, one HTML page", _add_report, _report
    ),
    "card": _Command("write a folder with weights and their model card", _add_card, _card),
    "list": _Command("list what there is", _add_list, _list),
}


def config_classes() -> dict[str, type]:
    """Return the class of each command's config, for those that take one."""
    return {
        name: command.config_class()
        for name, command in COMMANDS.items()
        if command.config_class is not None
    }
