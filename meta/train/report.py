"""A meta-training's report: one HTML page that holds all it shows and runs nothing.

It is written from `config.yaml`, `metrics.jsonl` and `weights.npz` alone, read-only, so it can be
made of a finished run, an interrupted one, or one that is still going on. What the files hold is
shown as text, whoever wrote it.
"""

import dataclasses
import itertools
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import jax
import numpy as np
import yaml

from veldt.learned_opt import shipped
from veldt.learned_opt import weight_files as weights
from veldt.meta import errors
from veldt.meta.train import config as config_lib
from veldt.meta.train import directory, display, log, meta_figures
from veldt.meta.train.meta_figures import Curve, Stretch
from veldt.tasks.common import errors as task_errors
from veldt.tasks.common.config import older_config
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.common.html import page as page_lib
from veldt.tasks.common.html.markup import Html, definitions, join, table, tag
from veldt.tasks.common.nan_last import lowest

REPORT_FILE: Final = "report.html"
# What an estimator's objective is called.
_OBJECTIVES: Final[Mapping[str, str]] = {
    "mean": "mean loss",
    "final": "final loss",
    "log_final": "log of the final loss",
    "telescoped": "change of loss",
}


@final
@dataclasses.dataclass(frozen=True)
class MetaTrainRunData:
    """What a run has written down.

    Attributes:
      config: As in `config.yaml`.
      updates: Lines of the log, one for each update, in order.
      checks: Lines of the log, one for each look at meta-validation.
      weights: The best so far; None before the first checkpoint.
      phases: The phases begun, with their settings.
    """

    config: Mapping[str, Any]
    updates: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]
    weights: weights.Weights | None
    phases: Sequence[tuple[Stretch, Mapping[str, Any]]]

    @property
    def num_updates(self) -> int:
        """Of the whole run."""
        return sum(phase["num_updates"] for phase in self.config["phases"])

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return len(self.updates) >= self.num_updates

    @property
    def meta_loss(self) -> Curve:
        """Of each family and update, float64 [E, U]."""
        return np.array([line["meta_loss"] for line in self.updates], np.float64).T

    def total(self, name: str, stretch: Stretch | None = None) -> float:
        """The sum of a figure over the updates of a phase, or of all."""
        first, last = (0, None) if stretch is None else (stretch.first, stretch.last)
        return math.fsum(line[name] for line in self.updates[first:last])

    @property
    def families(self) -> list[str]:
        """Their names, or numbers where no weights name them yet."""
        count = len(self.updates[0]["meta_loss"])
        known = [] if self.weights is None else self.weights.record.get("families", [])
        return list(known) if len(known) == count else [f"family {i}" for i in range(count)]


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write the report of a meta-training.

    Args:
      run_dir: The run's directory.
      output: The file; `report.html` in the run directory if None.

    Returns:
      The file written.

    Raises:
      MetaTrainError: There is no run, it has written nothing down yet, or its files are damaged.
      WeightsError: Its weight file is damaged.
      TaskError: The report cannot be written.
    """
    text = render(run_dir)
    path = run_dir / REPORT_FILE if output is None else output
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise task_errors.TaskError(f"{path} cannot be written: {error.strerror}") from None
    atomic_files.write_bytes(path, text.encode(errors="replace"))
    return path


def render(run_dir: Path) -> str:
    """Return the report of a run as HTML; see `write_report`."""
    data = read(run_dir)
    try:
        sections = [
            _headline(data, run_dir),
            _meta_loss(data),
            _meta_validation(data),
            _use(run_dir),
            _families(data),
            _phases(data),
            _gradients(data),
            _configuration(data),
        ]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise errors.MetaTrainError(
            f"the log or the config in {run_dir} is damaged, or not of one meta-training: "
            f"{type(error).__name__}: {error}"
        ) from error
    title = f"veldt meta-training: {run_dir.resolve().name}"
    return page_lib.page(title, *sections, rules=meta_figures.STYLE)


def read(run_dir: Path) -> MetaTrainRunData:
    """Return what a run has written down.

    Raises:
      MetaTrainError: There is no run, it has written nothing down yet, or its files are damaged.
      WeightsError: Its weight file is damaged.
    """
    if not (run_dir / directory.CONFIG_FILE).is_file():
        raise errors.MetaTrainError(f"there is no meta-training in {run_dir}")
    config = older_config.fill(
        config_lib.MetaTrainConfig, directory.read_config(run_dir / directory.CONFIG_FILE)
    )
    lines = list(log.read(run_dir))
    updates = [line for line in lines if line["kind"] == "update"]
    if not updates:
        raise errors.MetaTrainError(f"the meta-training in {run_dir} has done no update yet")
    found = run_dir / shipped.RUN_FILE
    phases, first = [], 0
    for phase in config.get("phases", []):
        last = min(first + phase["num_updates"], len(updates))
        if last > first:
            phases.append((Stretch(phase["name"], first, last), phase))
        first += phase["num_updates"]
    return MetaTrainRunData(
        config,
        updates,
        [line for line in lines if line["kind"] == "check"],
        weights.read(found) if found.exists() else None,
        phases,
    )


def _section(title: str, *content: object) -> Html:
    return tag("section", tag("h2", title), *content)


def _headline(data: MetaTrainRunData, run_dir: Path) -> Html:
    wall_s = data.updates[-1]["wall_s"]
    num_steps = data.total("num_inner_steps")
    facts = {
        "architecture": data.config["architecture"],
        "meta-parameters": _size(data),
        "task families": len(data.families),
        "updates": f"{len(data.updates):,} of {data.num_updates:,}",
        "inner steps": f"{num_steps:,.0f}",
        "worker-hours": f"{data.total('worker_s') / 3600:.2f}",
        "wall clock": display.duration(wall_s),
        "rate": f"{num_steps / wall_s:,.0f} inner steps per second" if wall_s > 0 else "-",
        "seed": data.config["seed"],
    }
    parts: list[object] = [tag("p", _outcome(data), class_="outcome")]
    if not data.finished:
        again = shlex.join(
            [
                *("veldt", "meta-train", str(run_dir / directory.CONFIG_FILE)),
                *("--run-dir", str(run_dir), "--resume"),
            ]
        )
        goes_on = ["If it was interrupted, ", tag("code", again), " goes on with it."]
        parts.append(tag("p", *goes_on, class_="soft"))
    return tag("header", tag("h1", run_dir.resolve().name), *parts, definitions(facts))


def _size(data: MetaTrainRunData) -> str:
    if data.weights is None:
        return "-"
    return f"{sum(leaf.size for leaf in jax.tree.leaves(data.weights.meta_params)):,}"


def _outcome(data: MetaTrainRunData) -> str:
    begun = "" if data.finished else "This meta-training has not ended. "
    if not data.checks:
        return f"{begun}There were no looks at meta-validation: the last weights are kept."
    scores = _floats(line["score"] for line in data.checks)
    where = lowest(scores)
    if where is None:
        return f"{begun}No look at meta-validation was finite: the last weights are kept."
    first, best = data.checks[0], data.checks[where]
    if best is first:
        return (
            f"{begun}On meta-validation nothing has beaten the first look, after update "
            f"{first['update']:,}: {first['score']:+.3f} mean log loss."
        )
    return (
        f"{begun}Mean log loss on meta-validation came down from {scores[0]:+.3f} to "
        f"{best['score']:+.3f}, after update {best['update']:,}. The weights were chosen by it, so "
        "it flatters them; it says nothing of how they compare with a tuned baseline."
    )


def _panels(data: MetaTrainRunData) -> list[tuple[str, list[Stretch]]]:
    """Return what was counted as the meta-loss, and the phases in a row that count it."""

    def label(phase: Mapping[str, Any]) -> str:
        how = phase["estimator"]
        if how["kind"] == "imitation":
            return "distance from the expert"
        return f"meta-loss ({_OBJECTIVES[how['objective']]})"

    groups = itertools.groupby(data.phases, key=lambda each: label(each[1]))
    return [(name, [stretch for stretch, _ in group]) for name, group in groups]


def _meta_loss(data: MetaTrainRunData) -> Html:
    losses = data.meta_loss
    figures = (meta_figures.meta_loss(losses, group, label) for label, group in _panels(data))
    return _section("Meta-loss", *figures)


def _meta_validation(data: MetaTrainRunData) -> Html:
    if not data.checks:
        return Html()
    figure = meta_figures.meta_validation(
        [line["update"] for line in data.checks],
        _floats(line["score"] for line in data.checks),
        {
            name: _floats(line["tasks"][name] for line in data.checks)
            for name in data.checks[0]["tasks"]
        },
        [stretch for stretch, _ in data.phases],
    )
    text = (
        "Log of the normalised validation loss at the end of each training run, mean over "
        f"{data.config['validation_seeds']} seeds: 0 is knowing nothing, −0.7 half of that loss."
    )
    return _section("Meta-validation", tag("p", text), figure)


def _use(run_dir: Path) -> Html:
    snippet = "\n".join(
        [
            "import optax",
            "import veldt",
            "",
            f'tx = veldt.learned_optimizer("{run_dir}", num_steps=1000)',
            "opt_state = tx.init(params)",
            "updates, opt_state = tx.update(grads, opt_state, params, value=loss)",
            "params = optax.apply_updates(params, updates)",
        ]
    )
    compare = shlex.join(["veldt", "evaluate", str(run_dir), "--suite", "small"])
    return _section(
        "Using the weights",
        tag("p", "An Optax transform like any other; ", tag("code", "num_steps"),
            " is the length of your training run."),
        tag("pre", tag("code", snippet)),
        tag("p", "Against tuned baselines:"),
        tag("pre", tag("code", compare)),
    )  # fmt: skip


def _families(data: MetaTrainRunData) -> Html:
    label, stretches = _panels(data)[-1]
    first, last = stretches[0].first, stretches[-1].last
    average = meta_figures.width(last - first)
    rows = []
    for name, losses in zip(data.families, data.meta_loss[:, first:last], strict=True):
        began, ended = (
            float(meta_figures.smooth(part, average)[-1])
            for part in (losses[:average], losses[-average:])
        )
        lost = int(np.sum(~np.isfinite(losses)))
        rows.append(("", (name, _number(began), _number(ended), _number(ended - began), lost)))
    names = " and ".join(dict.fromkeys((stretches[0].name, stretches[-1].name)))
    text = (
        f"The {label} in {names}: means of the first and the last {average:,} of "
        f"{last - first:,} updates. Each update draws other tasks of a family, so differences "
        "between few updates are noise."
    )
    heads = ("family", "first", "last", "change", "updates not finite")
    return _section(
        "Task families", tag("p", text), table(heads, rows, numbers=range(1, len(heads)))
    )


def _floats(values: Iterable[float | None]) -> list[float]:
    """Return numbers of the log, where what is not finite is null."""
    return [math.nan if value is None else float(value) for value in values]


def _number(value: float) -> str:
    return f"{value:.4f}".replace("-", "−") if math.isfinite(value) else "-"


def _phases(data: MetaTrainRunData) -> Html:
    rows = []
    for stretch, phase in data.phases:
        how, outer = phase["estimator"], phase["outer"]
        low, high = phase["lengths"]
        rows.append(
            (
                "",
                (
                    stretch.name,
                    f"{stretch.last - stretch.first:,} of {phase['num_updates']:,}",
                    ", ".join(phase["train"]) or "all",
                    f"{how['kind']}, {how['num_particles']} × {how['window']} steps",
                    f"{low:,}" if low == high else f"{low:,} to {high:,}",
                    f"{outer['optimizer']}, {outer['learning_rate']:g}",
                    f"{data.total('num_inner_steps', stretch):,.0f}",
                    f"{data.total('worker_s', stretch) / 3600:.2f}",
                    f"{data.total('num_nonfinite', stretch):,.0f}",
                ),
            )
        )
    heads = (
        "phase", "updates", "trains", "estimator", "lengths", "outer optimizer", "inner steps",
        "worker-hours", "not finite",
    )  # fmt: skip
    return _section("Phases", table(heads, rows, numbers=(1, 4, 6, 7, 8)))


def _gradients(data: MetaTrainRunData) -> Html:
    norms = np.array([line["meta_grad_norm"] for line in data.updates], np.float64)
    stretches = [stretch for stretch, _ in data.phases]
    return _section("Meta-gradient", meta_figures.gradient_norm(norms, stretches))


def _configuration(data: MetaTrainRunData) -> Html:
    text = yaml.safe_dump(dict(data.config), sort_keys=False, allow_unicode=True)
    record = {} if data.weights is None else data.weights.record
    versions = record.get("versions", {})
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    return _section(
        "Configuration",
        tag("details", tag("summary", "The resolved config"), tag("pre", tag("code", text))),
        join([definitions({"made with": made})]) if made else Html(),
    )
