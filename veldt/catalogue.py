"""The catalogue: the names of `veldt list`, and the fields of `--help`.

To collect them takes seconds, since JAX is imported and things are built. So they are stored
in `catalogue.json` (`make catalogue`), and a test checks that the file is up to date.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from veldt import config as config_lib
from veldt.fields import FieldInfo, list_fields

if TYPE_CHECKING:
    from veldt.learned_opt import weight_files

FILE: Final = Path(__file__).parent / "catalogue.json"


@final
@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a list."""

    name: str
    description: str


def rows(what: str) -> tuple[Row, ...]:
    """Return the rows of a list that the catalogue has: rules, tasks or weights."""
    return tuple(Row(**row) for row in _read()[what])


def suites() -> tuple[Row, ...]:
    """Return the shipped suites."""
    from veldt.tasks import suites

    return tuple(Row(suite.name, suite.description) for suite in suites.SUITES.values())


def configs() -> tuple[Row, ...]:
    """Return the shipped configs."""
    return tuple(Row(info.name, info.description) for info in config_lib.list_configs())


LISTS: Final[Mapping[str, Callable[[], tuple[Row, ...]]]] = {
    "rules": lambda: rows("rules"),
    "tasks": lambda: rows("tasks"),
    "suites": suites,
    "configs": configs,
    "weights": lambda: rows("weights"),
}


def fields(command: str) -> tuple[FieldInfo, ...]:
    """Return the fields of a command's config."""
    return tuple(map(_field, _read()["fields"][command]))


def make(config_classes: Mapping[str, type]) -> dict[str, Any]:
    """Return the present catalogue.

    Args:
      config_classes: Classes of the commands' configs, by command.
    """
    from veldt.learned_opt import shipped
    from veldt.search import rule_sources
    from veldt.tasks import registry

    found = {
        "rules": [Row(row.name, row.description) for row in rule_sources.list_rules()],
        "tasks": [
            Row(name, (factory.__doc__ or "").partition("\n")[0])
            for name, factory in registry.TASKS.items()
        ],
        "weights": [Row(name, _weights(shipped.load(name))) for name in shipped.names()],
    }
    return {
        **{name: [dataclasses.asdict(row) for row in listed] for name, listed in found.items()},
        "fields": {name: _plain(list_fields(cls)) for name, cls in config_classes.items()},
    }


def _weights(found: "weight_files.Weights") -> str:
    """Return the description of a shipped weight file, on one line."""
    import jax

    num_weights = sum(leaf.size for leaf in jax.tree.leaves(found.meta_params))
    benchmark, cost = found.record["benchmark"], found.record["cost"]
    speedup = benchmark["speedup"]
    return (
        f"{found.name}, {num_weights:,} weights, meta-trained in {cost['worker_hours']:.1f} "
        f"worker-hours; speed-up on {benchmark['suite']}, nothing tuned: {speedup['value']:.2f} "
        f"[{speedup['low']:.2f}, {speedup['high']:.2f}]"
    )


def write(content: Mapping[str, Any], path: Path = FILE) -> None:
    """Write the catalogue."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _read() -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def _plain(listed: Iterable[FieldInfo]) -> list[dict[str, Any]]:
    """Return fields for JSON, without empty entries."""
    return [
        {
            **{key: value for key, value in dataclasses.asdict(row).items() if value},
            **({"keys": _plain(row.keys)} if row.keys else {}),
        }
        for row in listed
    ]


def _field(plain: Mapping[str, Any]) -> FieldInfo:
    keys = tuple(map(_field, plain.get("keys", ())))
    texts = {name: plain.get(name, "") for name in ("option", "kind", "default", "description")}
    return FieldInfo(**texts, keys=keys)
