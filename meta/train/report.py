"""A meta-training's report: one HTML page without scripts and links to outside.

It is written from `config.yaml`, `metrics.jsonl` and `weights.npz` alone, read-only, so it can be
made of a finished run, an interrupted one, or one that is still going on. The content of the files
is shown as text, since it may come from a stranger.
"""

import itertools
import math
import shlex
from pathlib import Path

import jax
import numpy as np

from veldt.meta.train import meta_figures, training_data
from veldt.meta.train.config import OBJECTIVES, PhaseConfig
from veldt.meta.train.meta_figures import Stretch
from veldt.meta.train.training_data import TrainingData
from veldt.tasks.common.disk import run_directory
from veldt.tasks.common.formatting import duration
from veldt.tasks.common.html import page as page_lib
from veldt.tasks.common.html.markup import Html, definitions, table, tag
from veldt.tasks.common.html.page import section
from veldt.tasks.common.nan_last import lowest


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write the report of a meta-training.

    Args:
      run_dir: Directory of the run.
      output: File to write; None for `report.html` in the run directory.

    Returns:
      File that was written.

    Raises:
      MetaTrainError: There is no run, it has no update yet, or its log is damaged.
      ConfigError: The config is damaged.
      WeightsError: The weight file is damaged.
      FileError: The report cannot be written.
    """
    return page_lib.write(render(run_dir), run_dir, output)


def render(run_dir: Path) -> str:
    """Return the report of a run as HTML; see `write_report`."""
    data = training_data.read(run_dir)
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
    title = f"veldt meta-training: {run_dir.resolve().name}"
    return page_lib.page(title, *sections, rules=meta_figures.STYLE)


def render_plots(run_dir: Path) -> str:
    """Return the report's plots of the run's course as a page; see `write_report`."""
    data = training_data.read(run_dir)
    title = f"veldt meta-training: {run_dir.resolve().name}"
    sections = (_meta_loss(data), _meta_validation(data))
    return page_lib.page(title, *sections, rules=meta_figures.STYLE)


def _headline(data: TrainingData, run_dir: Path) -> Html:
    wall_s = data.updates[-1].wall_s
    num_steps = data.total("num_inner_steps")
    facts = {
        "architecture": data.config.architecture,
        "meta-parameters": _size(data),
        "task families": len(data.families),
        "updates": f"{len(data.updates):,} of {data.config.num_updates:,}",
        "inner steps": f"{num_steps:,.0f}",
        "worker-hours": f"{data.total('worker_s') / 3600:.2f}",
        "wall clock": duration(wall_s),
        "rate": f"{num_steps / wall_s:,.0f} inner steps per second" if wall_s > 0 else "-",
        "seed": data.config.seed,
    }
    parts: list[object] = [tag("p", _outcome(data), class_="outcome")]
    if not data.finished:
        again = shlex.join(
            [
                *("veldt", "meta-train", str(run_dir / run_directory.CONFIG_FILE)),
                *("--run-dir", str(run_dir), "--resume"),
            ]
        )
        goes_on = ["If it was interrupted, ", tag("code", again), " goes on with it."]
        parts.append(tag("p", *goes_on, class_="soft"))
    return tag("header", tag("h1", run_dir.resolve().name), *parts, definitions(facts))


def _size(data: TrainingData) -> str:
    if data.weights is None:
        return "-"
    return f"{sum(leaf.size for leaf in jax.tree.leaves(data.weights.meta_params)):,}"


def _outcome(data: TrainingData) -> str:
    begun = "" if data.finished else "This meta-training has not ended. "
    if not data.checks:
        return f"{begun}There were no meta-validations: the last weights are kept."
    scores = [line.score for line in data.checks]
    where = lowest(scores)
    if where is None:
        return f"{begun}No meta-validation was finite: the last weights are kept."
    first, best = data.checks[0], data.checks[where]
    if best is first:
        return (
            f"{begun}On meta-validation nothing has beaten the first check, after update "
            f"{first.update:,}: {first.score:+.3f} mean log loss."
        )
    return (
        f"{begun}Mean log loss on meta-validation came down from {scores[0]:+.3f} to "
        f"{best.score:+.3f}, after update {best.update:,}. The weights were chosen by it, so "
        "it flatters them; it does not show how they compare with a tuned baseline."
    )


def _panels(data: TrainingData) -> list[tuple[str, list[Stretch]]]:
    """Return pairs of a meta-loss and the consecutive phases that are trained by it."""

    def label(phase: PhaseConfig) -> str:
        how = phase.estimator
        if how.kind == "imitation":
            return "distance from the expert"
        return f"meta-loss ({OBJECTIVES[how.objective]})"

    groups = itertools.groupby(data.phases, key=lambda each: label(each[1]))
    return [(name, [stretch for stretch, _ in group]) for name, group in groups]


def _meta_loss(data: TrainingData) -> Html:
    losses = data.meta_loss
    figures = (meta_figures.meta_loss(losses, group, label) for label, group in _panels(data))
    return section("Meta-loss", *figures)


def _meta_validation(data: TrainingData) -> Html:
    if not data.checks:
        return Html()
    figure = meta_figures.meta_validation(
        [line.update for line in data.checks],
        [line.score for line in data.checks],
        {name: [line.tasks[name] for line in data.checks] for name in data.checks[0].tasks},
        [stretch for stretch, _ in data.phases],
    )
    text = (
        "Log of the normalised validation loss at the end of each training run, mean over "
        f"{data.config.validation_seeds} seeds: 0 is knowing nothing, −0.7 half of that loss."
    )
    return section("Meta-validation", tag("p", text), figure)


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
    return section(
        "Using the weights",
        tag("p", "An Optax transform like any other; ", tag("code", "num_steps"),
            " is the length of your training run."),
        tag("pre", tag("code", snippet)),
        tag("p", "Against tuned baselines:"),
        tag("pre", tag("code", compare)),
    )  # fmt: skip


def _families(data: TrainingData) -> Html:
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
    return section(
        "Task families", tag("p", text), table(heads, rows, numbers=range(1, len(heads)))
    )


def _number(value: float) -> str:
    return f"{value:.4f}".replace("-", "−") if math.isfinite(value) else "-"


def _phases(data: TrainingData) -> Html:
    rows = []
    for stretch, phase in data.phases:
        how, outer = phase.estimator, phase.outer
        low, high = phase.lengths
        rows.append(
            (
                "",
                (
                    stretch.name,
                    f"{stretch.last - stretch.first:,} of {phase.num_updates:,}",
                    ", ".join(phase.train) or "all",
                    f"{how.kind}, {how.num_particles} × {how.window} steps",
                    f"{low:,}" if low == high else f"{low:,} to {high:,}",
                    f"{outer.optimizer}, {outer.learning_rate:g}",
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
    return section("Phases", table(heads, rows, numbers=(1, 4, 6, 7, 8)))


def _gradients(data: TrainingData) -> Html:
    norms = np.array([line.meta_grad_norm for line in data.updates], np.float64)
    stretches = [stretch for stretch, _ in data.phases]
    return section("Meta-gradient", meta_figures.gradient_norm(norms, stretches))


def _configuration(data: TrainingData) -> Html:
    record = {} if data.weights is None else data.weights.record
    versions = record.get("versions", {})
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    return page_lib.configuration(data.config, {"made with": made or "-"})
