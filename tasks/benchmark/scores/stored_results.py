"""The results of a comparison, read back from the JSON that `Results.to_json` wrote."""

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

from veldt.tasks.benchmark.scores.results import Results, Row
from veldt.tasks.common import errors


def read(path: Path) -> Results:
    """Return the results in a file.

    Raises:
      TaskError: There is no such file, it is damaged, or another version wrote it.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        results: Results = _value(Results, data)
    except OSError as error:
        raise errors.TaskError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.TaskError(
            f"{path} is damaged, or another version's ({type(error).__name__}: {error}): run the "
            "same `veldt evaluate` again, which continues from the runs that it keeps"
        ) from None
    return results


def _value(annotation: Any, data: Any) -> Any:
    """Return `data` as its annotation says; null, where a number belongs, is infinite."""
    if dataclasses.is_dataclass(annotation):
        return _record(annotation, data)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is types.UnionType:
        return None if data is None else _value(args[0], data)
    if origin is tuple:
        return tuple(_value(args[0], item) for item in _of(list, data))
    if origin is dict:
        return {key: _value(args[1], item) for key, item in _of(dict, data).items()}
    if annotation is float:
        return math.inf if data is None else float(_of((int, float), data))
    return _of(annotation, data)


def _record(cls: Any, data: Any) -> Any:
    annotations = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    missing = [
        name
        for name, field in fields.items()
        if name not in _of(dict, data) and field.default is dataclasses.MISSING
    ]
    if missing:
        raise KeyError(f"{cls.__name__} has no {missing[0]}")
    values = {name: _value(annotations[name], data[name]) for name in fields if name in data}
    record = cls(**values)
    return _without_scores(record) if isinstance(record, Row) else record


def _without_scores(row: Row) -> Row:
    """Return a row that no task counts for without scores; its nulls are not infinite."""
    if any(not task.selected for task in row.tasks):
        return row
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = {key: _nan(part) for key, part in dataclasses.asdict(value).items()}
            changed[field.name] = dataclasses.replace(value, **parts)
        elif isinstance(value, float):
            changed[field.name] = _nan(value)
    return dataclasses.replace(row, **changed)


def _nan(value: float) -> float:
    return math.nan if math.isinf(value) else value


def _of(kind: Any, data: Any) -> Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise TypeError(f"expected {getattr(kind, '__name__', kind)}, not {data!r:.60}")
    return data
