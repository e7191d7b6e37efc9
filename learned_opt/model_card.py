"""A folder with weights and their card, as model hubs want it; nothing is uploaded.

    README.md      the card: what it is, how to use it, data, cost, recipe, scores, limits, licence
    weights.npz    the weights, as a meta-training writes them

All that a card says is in the record of the weights, so that there is one account of where weights
come from. `veldt.learned_optimizer(FOLDER)` loads them. The front matter is that of Hugging Face's
model cards (https://huggingface.co/docs/hub/model-cards).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jax
import yaml

from veldt.learned_opt import errors, shipped, weight_files
from veldt.tasks.common.disk import atomic_files

CARD_FILE: Final = "README.md"
_FILES: Final = frozenset({CARD_FILE, shipped.RUN_FILE})


def write(source: str | Path, folder: Path, licence: str | None = None) -> Path:
    """Write weights and their card into a folder; return the card's path.

    Args:
      source: Shipped weights' name, the path of a weight file, or a meta-training run's directory.
      folder: Folder that is made, or that holds an earlier card.
      licence: Licence of the weights, by its SPDX name; None says that none is stated.

    Raises:
      WeightsError: There are no such weights, or the folder holds something else.
      FileError: The folder cannot be written.
    """
    found = shipped.load(source)
    content = weight_files.read_bytes(shipped.find(source))
    text = card(found, shipped.name_of(source), licence)
    atomic_files.make_folder(folder)
    others = sorted(path.name for path in folder.iterdir() if path.name not in _FILES)
    if others:
        raise errors.WeightsError.of(folder, f"a folder with other files, such as {others[0]}")
    atomic_files.write_bytes(folder / shipped.RUN_FILE, content)
    atomic_files.write_text(folder / CARD_FILE, text)
    return folder / CARD_FILE


def card(weights: weight_files.Weights, name: str, licence: str | None = None) -> str:
    """Return the text of a card.

    Args:
      weights: Weights with their record.
      name: What to call them.
      licence: As for `write`.

    Raises:
      WeightsError: The record is not of the form that a meta-training writes.
    """
    try:
        return _card(weights, name, licence)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"weights whose record cannot be read ({type(error).__name__}: {error})"
        raise errors.WeightsError.of(name, what) from None


def _card(weights: weight_files.Weights, name: str, licence: str | None) -> str:
    record = weights.record
    front = {"library_name": "veldt", "tags": ["learned-optimizer", "jax", "optax"]}
    if licence is not None:
        front = {"license": licence.lower(), **front}
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False).strip()}\n---",
        f"# {name}",
        _summary(weights),
        f"## Use\n\n{_usage(name)}",
        f"## Data\n\n{_data(record)}",
        f"## Training\n\n{_training(record)}",
        f"## Scores\n\n{_scores(record)}",
        f"## Limits\n\n{_limits(record)}",
        f"## Licence\n\n{licence or 'Not stated by who wrote this card.'}",
    ]
    return "\n\n".join(parts) + "\n"


def _summary(weights: weight_files.Weights) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(weights.meta_params))
    return (
        f"A learned optimizer of the architecture `{weights.name}` with {count:,} weights, which "
        "veldt loads as an Optax transform."
    )


def _usage(name: str) -> str:
    return (
        "```python\nimport veldt\n\n"
        f'tx = veldt.learned_optimizer("{name}", num_steps=1000)  # the path of this folder\n'
        "updates, state = tx.update(grads, state, params, value=loss)\n```\n\n"
        "`num_steps` is the length of the run. There is no learning rate to tune."
    )


def _data(record: Mapping[str, Any]) -> str:
    families, tasks = _texts(record.get("families")), _texts(record.get(weight_files.TASKS))
    lines = ["Trained on members of these families of tasks:" if families else "Not recorded."]
    lines += [f"- {family}" for family in families]
    if tasks:
        lines += ["", "Chosen by meta-validation on: " + ", ".join(f"`{task}`" for task in tasks)]
    return "\n".join(lines)


def _training(record: Mapping[str, Any]) -> str:
    cost, config = record.get("cost"), record.get("config")
    lines = []
    if isinstance(cost, Mapping):
        spent = [f"{key.replace('_', ' ')}: {value:,}" for key, value in cost.items()]
        lines.append("Cost: " + "; ".join(spent) + ".")
    for key, what in (("seed", "Seed"), ("update", "Updates")):
        if key in record:
            lines.append(f"{what}: {record[key]}.")
    versions = record.get("versions")
    if isinstance(versions, Mapping):
        lines.append("Versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".")
    if config:
        text = yaml.safe_dump(config, sort_keys=False, width=100).strip()
        lines.append(f"The whole config of the meta-training:\n\n```yaml\n{text}\n```")
    return "\n\n".join(lines) or "Not recorded."


def _scores(record: Mapping[str, Any]) -> str:
    score, scored = record.get("meta_validation_score"), record.get("benchmark")
    lines = []
    if score is not None:
        lines.append(
            f"Meta-validation: mean log loss {score:.3f}. It is what the weights were chosen by."
        )
    if isinstance(scored, Mapping):
        interval = "{value:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(
            f"On the suite `{scored['suite']}`, nothing tuned, against Adam's envelope over its "
            f"learning rates: speed-up {interval.format(**scored['speedup'])}, test loss over "
            f"Adam's {interval.format(**scored['test_ratio'])}, share of runs that diverged "
            f"{scored['diverged']:.2f}."
        )
        rows = ["| task | speed-up | test loss over Adam's |", "|---|---|---|"]
        rows += [
            f"| {task} | {_number(row['speedup'])} | {_number(row['test_ratio'])} |"
            for task, row in scored["tasks"].items()
        ]
        lines.append("\n".join(rows))
    return "\n\n".join(lines) or "Not scored."


def _limits(record: Mapping[str, Any]) -> str:
    config, scored = record.get("config"), record.get("benchmark")
    lines = []
    if isinstance(config, Mapping) and config.get("phases"):
        lengths = [length for phase in config["phases"] for length in phase["lengths"]]
        lines.append(
            f"Trained on runs of {min(lengths):,} to {max(lengths):,} steps. What it does beyond "
            "them is not known from its training."
        )
    if isinstance(scored, Mapping):
        slower = [task for task, row in scored["tasks"].items() if (row["speedup"] or 0.0) < 1]
        worse = [task for task, row in scored["tasks"].items() if (row["test_ratio"] or 0.0) > 1.05]
        if slower:
            lines.append(f"Slower than tuned Adam on: {', '.join(slower)}.")
        if worse:
            lines.append(f"A test loss above tuned Adam's by 5% or more on: {', '.join(worse)}.")
    return "\n\n".join(lines) or "Not measured."


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _texts(value: Any) -> list[str]:
    """Return the texts of a list in a record, which a stranger may have written."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
