"""The command line: `veldt COMMAND ...`.

Each command is one handler that imports what it needs, so that `veldt --help` and `veldt list` do
not wait for JAX. Exit codes: 0 success, 1 failure, 2 a command line or a config that cannot be
used, 130 Ctrl-C, 143 SIGTERM. An expected failure is one line on stderr; VELDT_DEBUG=1 shows its
traceback.
"""

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, final

import veldt
from veldt import config as config_lib
from veldt import errors
from veldt.tasks import blame, stopping

if TYPE_CHECKING:
    from veldt.tasks import pool_config

OK, FAILURE, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after `veldt`; None takes the process's own.

    Returns:
        The exit code.
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
        if (theirs := blame.describe(error)) is not None:
            print(f"error: your code raised {theirs}", file=sys.stderr)
            return FAILURE
        return error.code if isinstance(error.code, int) else FAILURE
    except Exception as error:
        if stopper.signum is not None and isinstance(error, _pool_error()):
            raise KeyboardInterrupt from error  # The cluster was asked to end as well.
        code, text = _exit_code(error), f"{error}"
        if code is None and (theirs := blame.describe(error)) is not None:
            code, text = FAILURE, f"your code raised {theirs}"
        if code is None or os.environ.get("VELDT_DEBUG") == "1":
            raise
        print(f"error: {text}", file=sys.stderr)
        return code


def _exit_code(error: Exception) -> int | None:
    """The code of an expected error; None for a defect, whose traceback is wanted."""
    from veldt.learned_opt import errors as learned_errors
    from veldt.meta import errors as meta_errors
    from veldt.meta.replay import errors as replay_errors
    from veldt.search import errors as search_errors
    from veldt.tasks import errors as task_errors

    if isinstance(error, errors.ConfigError | errors.UsageError):
        return USAGE
    expected = (
        task_errors.TaskError,
        learned_errors.LearnedOptError,
        meta_errors.MetaTrainError,
        replay_errors.ReplayError,
        search_errors.SearchError,
        OSError,
    )
    if isinstance(error, expected):
        return FAILURE
    return None


def _pool_error() -> type[Exception]:
    from veldt.tasks import pool

    return pool.PoolError


def _dispatch(words: list[str], stopper: stopping.Stopper) -> None:
    parser = _Parser(
        prog="veldt",
        description="Discover training algorithms.",
        epilog="`veldt COMMAND --help` says more. CONFIG is a YAML path or a name in `veldt list "
        "configs`; any of its fields is set by --field value.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"veldt {veldt.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
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
                action=_HelpWithFields,
                config_class=command.config_class,
                help="show this message and the config's fields",
            )
    if not words:
        parser.print_help()
        return
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise errors.UsageError(
            f"there is no command {words[0]!r}.{errors.did_you_mean(words[0], COMMANDS)} "
            f"Commands: {', '.join(COMMANDS)}"
        )
    chosen = COMMANDS.get(words[0])
    overrides: list[str] = []
    if chosen is not None and chosen.config_class is not None:
        words, overrides = _split_overrides(words, chosen.own_options)
    args = parser.parse_args(words)
    if chosen is None:
        raise errors.UsageError(f"the command comes first. Commands: {', '.join(COMMANDS)}")
    if chosen.config_class is not None:
        _check_overrides(chosen.config_class(), overrides, chosen.own_options)
    args.stopper = stopper
    chosen.run(args, overrides)


def _split_overrides(
    words: Sequence[str], own_options: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """Part a command's own words from its config's overrides, in whatever order they come."""
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        is_override = word.startswith("--") and name not in own_options
        num_values = 0
        if word.startswith("--") and not equals:
            num_values = own_options.get(name, 1)
        (overrides if is_override else own).extend([word, *rest[:num_values]])
        del rest[:num_values]
    return own, overrides


def _check_overrides(
    config_class: type, overrides: Iterable[str], own_options: Mapping[str, int]
) -> None:
    """Refuse what is a misspelt option of the command rather than a field of the config."""
    fields = {field.name for field in dataclasses.fields(config_class)}
    for word in overrides:
        name = word.partition("=")[0]
        field = name.removeprefix("--").partition(".")[0].replace("-", "_")
        known = [*own_options, *("--" + field.replace("_", "-") for field in sorted(fields))]
        hint = errors.did_you_mean(name, own_options)
        # Where a field is nearer, the config's own error names it.
        nearest = hint and hint == errors.did_you_mean(name, known)
        if name.startswith("--") and field not in fields and nearest:
            raise errors.UsageError(f"unknown option {name}.{hint}")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML path or a shipped config's name")
    parser.add_argument("--run-dir", type=Path, help="where the run is kept (runs/CONFIG)")
    parser.add_argument("--resume", action="store_true", help="go on with the run kept there")


def _search_config() -> type:
    from veldt.search import config

    return config.SearchConfig


def _search(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.search import config, display, run

    settings = config_lib.load_config(config.SearchConfig, args.config, overrides)
    run_dir = args.run_dir or Path("runs") / Path(args.config).stem
    _leave_accelerators_to_workers(settings.pool)
    view = display.make_display()
    again = _again("search", args, run_dir, overrides)
    with args.stopper.showing(view, f"all that was told is stored. To go on: {again}"):
        result = run.run_search(settings, run_dir, resume=args.resume, view=view)
    display.print_results(result.entries, run_dir, config=settings)


def _leave_accelerators_to_workers(settings: "pool_config.PoolConfig") -> None:
    """Where workers are other processes, keep this one, which trains nothing, on the CPU.

    JAX would take most of a GPU's memory here for a few small arrays.
    """
    from veldt.tasks import pool_config

    if pool_config.choose_backend(settings) == "ray":
        import jax

        jax.config.update("jax_platforms", "cpu")  # Not by the environment: workers inherit that.


def _meta_train_config() -> type:
    from veldt.meta import config

    return config.MetaTrainConfig


def _meta_train(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.meta import config, display, run
    from veldt.tasks import compiling

    settings = config_lib.load_config(config.MetaTrainConfig, args.config, overrides)
    run_dir = args.run_dir or Path("runs") / Path(args.config).stem
    _leave_accelerators_to_workers(settings.pool)
    compiling.keep_compiled()
    view = display.make_display()
    again = _again("meta-train", args, run_dir, overrides)
    with args.stopper.showing(view, f"what was reached is stored. To go on: {again}"):
        result = run.run_meta_training(settings, run_dir, resume=args.resume, view=view)
    display.print_result(result.progress, run_dir)


def _tune_config() -> type:
    from veldt.meta.tune import config

    return config.TuneConfig


def _tune(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.meta.tune import config, display, run
    from veldt.tasks import compiling

    settings = config_lib.load_config(config.TuneConfig, args.config, overrides)
    run_dir = args.run_dir or Path("runs") / Path(args.config).stem
    compiling.keep_compiled()
    view = display.make_display()
    again = _again("tune", args, run_dir, overrides)
    with args.stopper.showing(view, f"what was reached is stored. To go on: {again}"):
        result = run.run_tuning(settings, run_dir, resume=args.resume, view=view)
    display.print_result(settings, result.progress, result.numbers, run_dir, result.rivals)


def _again(command: str, args: argparse.Namespace, run_dir: Path, overrides: Sequence[str]) -> str:
    """The command line that goes on with a run."""
    words = ["veldt", command, args.config, "--run-dir", str(run_dir), *overrides, "--resume"]
    return shlex.join(words)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "rules",
        metavar="RULE",
        nargs="+",
        help="a baseline's or a shipped rule's name, a rule file, a run directory, or "
        "module:function that makes an Optax transform",
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
    from veldt.tasks.benchmark import display, evaluate

    settings = config_lib.make_config(evaluate.EvaluateConfig, overrides)
    _leave_accelerators_to_workers(settings.pool)
    suite = evaluation.load_suite(args.suite)
    candidates = [evaluation.load_candidate(rule) for rule in args.rules]
    folder = args.out or Path("runs") / f"evaluate_{suite.name}"
    watcher = display.make_watcher()
    words = ["veldt", "evaluate", *args.rules, "--suite", args.suite, "--out", str(folder)]
    again = shlex.join([*words, *overrides])
    with args.stopper.showing(watcher, f"finished runs are stored. To go on: {again}"):
        results = evaluate.evaluate(suite, candidates, settings, folder, watcher)
    display.print_results(results)
    for path in evaluation.write_results(results, folder):
        print(f"wrote {path}")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a rule's name, a rule file, or a run")
    parser.add_argument("--to", default="optax", metavar="FORMAT", help="optax")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")


def _export(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.search import best, export
    from veldt.tasks import files

    writers = {"optax": export.export_optax}
    if args.to not in writers:
        hint = errors.did_you_mean(args.to, writers)
        raise errors.UsageError(
            f"cannot export to {args.to!r}.{hint} Formats: {', '.join(writers)}"
        )
    if Path(args.source).is_dir():
        found = best.read_best(Path(args.source))
        text = writers[args.to](
            found.program, learning_rate=found.learning_rate, provenance=found.provenance
        )
    else:
        text = writers[args.to](veldt.load_rule(args.source))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(args.output, text.encode())
    print(f"wrote {args.output}")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a run's directory")


def _report(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    from veldt.meta import directory, log
    from veldt.meta import report as meta_report
    from veldt.meta.tune import report as tune_report
    from veldt.search import report as search_report

    write = search_report.write_report
    if (args.run_dir / log.FILE_NAME).exists():
        is_tuning = "tune" in directory.read_config(args.run_dir / directory.CONFIG_FILE)
        write = tune_report.write_report if is_tuning else meta_report.write_report
    print(f"wrote {write(args.run_dir)}")


class _Row(Protocol):
    """What a registry lists."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...


def _list_rules() -> Sequence[_Row]:
    from veldt.search import rules

    return rules.list_rules()


def _list_tasks() -> Sequence[_Row]:
    from veldt.tasks import registry

    return registry.list_tasks()


def _list_suites() -> Sequence[_Row]:
    from veldt.tasks import suites

    return tuple(suites.SUITES.values())


def _list_configs() -> Sequence[_Row]:
    return config_lib.list_configs()


LISTS: dict[str, Callable[[], Sequence[_Row]]] = {
    "rules": _list_rules,
    "tasks": _list_tasks,
    "suites": _list_suites,
    "configs": _list_configs,
}


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT", help=", ".join(LISTS))


def _list(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    if args.what not in LISTS:
        hint = errors.did_you_mean(args.what, LISTS)
        raise errors.UsageError(f"cannot list {args.what!r}.{hint} Lists: {', '.join(LISTS)}")
    rows = LISTS[args.what]()
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        print(f"{row.name:{width}}  {row.description}".rstrip())


@final
@dataclasses.dataclass(frozen=True)
class _Command:
    """One command.

    Attributes:
        summary: One line for `veldt --help`.
        add_arguments: Declares its words to argparse.
        run: Does it. Takes the parsed words and the overrides of the config.
        config_class: Imports and returns the class of its CONFIG; None if it takes none.
        own_options: Where it takes a config: the options that are none of its fields, each with
            how many words follow.
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
    "report": _Command("write a run's report, one HTML page", _add_report, _report),
    "list": _Command("list what there is", _add_list, _list),
}


@final
class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print, so that all errors leave by one door."""

    def error(self, message: str) -> NoReturn:
        """Raise a usage error that says how the command is used."""
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise errors.UsageError(f"{message}\nusage: {usage}")


@final
class _HelpWithFields(argparse.Action):
    """`--help` of a command with a config: argparse's text, then the config's fields."""

    def __init__(self, *, config_class: Callable[[], type], **kwargs: Any):
        super().__init__(nargs=0, **kwargs)
        self._config_class = config_class

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> None:
        parser.print_help()
        print("\nfields of CONFIG:")
        for field in config_lib.list_fields(self._config_class()):
            print(f"  {field.option} ({field.kind}; {field.default})")
            if field.description:
                print(f"      {field.description}")
        parser.exit()
