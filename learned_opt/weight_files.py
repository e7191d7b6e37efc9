"""Weights of a learned optimizer in a file: arrays and text, nothing that could run.

A weight file is an `.npz` archive. Its entry `header.json` says which architecture the weights are
of, with all fields, and how they came to be; each array is an entry under its path in the meta-
parameters, such as `meta_params/mlp/w0.npy`:

    {"format": 1,
     "architecture": {"name": "celo2", "fields": {"hidden_size": 8, ...}},
     "record": {"tasks": ["digits_mlp"], "seed": 0, ...}}

Equal weights make equal bytes: entries are sorted, carry no date, and are not compressed.
"""

import dataclasses
import inspect
import io
import json
import math
import reprlib
import typing
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, final

import jax
import numpy as np
import optax

from veldt.learned_opt import base, errors, registry
from veldt.tasks.common.config import codec
from veldt.tasks.common.disk import atomic_files, npz
from veldt.tasks.common.errors import ConfigError

FORMAT: Final = 1
HEADER: Final = "header.json"
TASKS: Final = "tasks"
"""The record's entry that lists the names of the tasks that were trained on."""

_PREFIX: Final = "meta_params/"
_SUFFIX: Final = ".npy"
_MAX_FILE_BYTES: Final = 1 << 30
_MAX_HEADER_BYTES: Final = 1 << 24
_MAX_ARRAY_HEADER_BYTES: Final = 1 << 14
# What a file may say of an architecture, far above what is published: more would be no rule but a
# trap. Of whole numbers, which are sizes, those that time is spent on have bounds of their own.
_MAX_SIZE: Final = 4096
_MAX_SIZES: Final = {"hidden_layers": 16, "newton_schulz_steps": 32}
_MAX_LENGTH: Final = 64  # of a list
_MAX_NUMBER: Final = 1e9
_MAX_TEXT: Final = 1000  # characters

Record: TypeAlias = Mapping[str, Any]
"""What JSON can hold: the training config, seed, cost, scores, names of tasks."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """A learned optimizer with its weights, and how they came to be.

    Attributes:
      name: Name of the architecture in `registry.ARCHITECTURES`.
      architecture: The update rule.
      meta_params: Weights, as from `architecture.init`.
      record: Anything that JSON can hold. `"tasks"` lists the names of the tasks trained on.
    """

    name: str
    architecture: base.LearnedOptimizer
    meta_params: base.MetaParams
    record: Record = dataclasses.field(default_factory=dict)

    @property
    def tasks(self) -> frozenset[str]:
        """Names of the tasks that the weights were trained on, as far as the record says."""
        named = self.record.get(TASKS)
        listed = named if isinstance(named, list | tuple) else []
        return frozenset(name for name in listed if isinstance(name, str))

    def as_optax(
        self, num_steps: base.NumSteps = None, **options: Any
    ) -> optax.GradientTransformationExtraArgs:
        """Return the transform.

        Args:
          num_steps: The length of the training run, where the architecture reads it.
          **options: Further keyword arguments of the architecture's own `as_optax`.

        Raises:
          UnknownOptionError: The architecture takes no such option.
          MissingInputError: It needs the number of steps.
        """
        taken = inspect.signature(self.architecture.as_optax).parameters
        known = [name for name in taken if name not in ("meta_params", "num_steps")]
        for option in options:
            if option not in known:
                raise errors.UnknownOptionError.of(self.name, option, known)
        return self.architecture.as_optax(self.meta_params, num_steps, **options)


def write(path: str | Path, weights: Weights) -> None:
    """Write a weight file, whole or not at all.

    Raises:
      WeightsError: The weights do not fit the architecture, or there is no file for them.
      FileError: The file cannot be written.
    """
    atomic_files.write_bytes(Path(path), to_bytes(weights))


def read(path: str | Path) -> Weights:
    """Read a weight file, as data; what it holds is checked.

    Raises:
      WeightsError: There is none, it is damaged, or it is something else.
    """
    return from_bytes(read_bytes(path), str(path))


def read_bytes(path: str | Path) -> bytes:
    """Return a weight file's content, unchecked.

    Raises:
      WeightsError: It cannot be read.
    """
    try:
        with Path(path).open("rb") as handle:
            content = handle.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise errors.WeightsError.of(path, f"longer than {_MAX_FILE_BYTES} bytes")
        return content
    except OSError as error:
        raise errors.WeightsError.of(path, error.strerror or str(error)) from None


def to_bytes(weights: Weights) -> bytes:
    """Return the content of a weight file.

    Raises:
      WeightsError: The weights do not fit the architecture, or there is no file for them.
    """
    header = {
        "format": FORMAT,
        "architecture": {"name": weights.name, "fields": _plain_fields(weights)},
        "record": dict(weights.record),
    }
    try:
        text = json.dumps(header, indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise errors.WeightsError(f"the record is no JSON: {error}") from None
    specs = _flatten(_shapes(weights.architecture))
    arrays = {name: np.asarray(leaf) for name, leaf in _flatten(weights.meta_params).items()}
    wrong = _misfits(arrays, specs) or _not_finite(arrays)
    if wrong:
        raise errors.WeightsError(f"the weights are none of this {weights.name}: {wrong}")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(HEADER), text + "\n")
        for name in sorted(arrays):
            little = np.dtype(specs[name].dtype).newbyteorder("<")
            array = io.BytesIO()
            np.lib.format.write_array(
                array, np.asarray(arrays[name], little, order="C"), allow_pickle=False
            )
            archive.writestr(_entry(name + _SUFFIX), array.getvalue())
    return content.getvalue()


def from_bytes(content: bytes, source: str) -> Weights:
    """Return what a weight file holds.

    Args:
      content: The file's.
      source: What to call it in messages.

    Raises:
      WeightsError: It is damaged, or something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            header = _read_header(archive)
            architecture = _architecture(header["architecture"])
            shapes = _shapes(architecture)
            arrays = _read_arrays(archive, _flatten(shapes))
        record = header["record"]
        if not isinstance(record, dict):
            raise ValueError("its record is no mapping")
    except errors.LearnedOptError as error:
        raise errors.WeightsError.of(source, str(error)) from None
    except Exception as error:  # A damaged zip, header or array raises many kinds.
        why = f"no weight file of veldt, or damaged: {type(error).__name__}: {error}"
        raise errors.WeightsError.of(source, why) from None
    # Not `jnp.asarray`, which compiles something for every shape.
    leaves = jax.device_put([arrays[name] for name in _flatten(shapes)])
    meta_params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return Weights(header["architecture"]["name"], architecture, meta_params, record)


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry that does not say when and where it was written."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # Unix, whatever this is.
    entry.external_attr = 0o644 << 16
    return entry


def _read_header(archive: zipfile.ZipFile) -> dict[str, Any]:
    if HEADER not in archive.namelist():
        raise errors.WeightsError(f"it has no {HEADER}: no weight file of veldt")
    if archive.getinfo(HEADER).file_size > _MAX_HEADER_BYTES:
        raise ValueError(f"{HEADER} is too long")
    header = json.loads(archive.read(HEADER))
    if header["format"] != FORMAT:
        raise errors.WeightsError(
            f"its format is {header['format']!r}; this version of veldt reads {FORMAT}"
        )
    return header


def _read_arrays(
    archive: zipfile.ZipFile, specs: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, np.ndarray]:
    """Read the arrays that the architecture has, and refuse what is missing or too many."""
    entries = {info.filename: info for info in archive.infolist() if info.filename != HEADER}
    names = {name.removesuffix(_SUFFIX) for name in entries}
    wrong = _differences(names, set(specs))
    if wrong:
        raise errors.WeightsError(wrong)
    arrays = {}
    for name, spec in specs.items():
        entry = entries[name + _SUFFIX]
        # Before anything of a stranger's claimed size is allocated.
        wanted = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        if not wanted <= entry.file_size <= wanted + _MAX_ARRAY_HEADER_BYTES:
            raise errors.WeightsError(f"{name} is not of shape {spec.shape}, {spec.dtype}")
        arrays[name] = npz.array(archive.read(entry))
    wrong = _misfits(arrays, specs) or _not_finite(arrays)
    if wrong:
        raise errors.WeightsError(wrong)
    return arrays


def _shapes(architecture: base.LearnedOptimizer) -> Any:
    """Return an architecture's meta-parameters, as shapes and dtypes alone."""
    return jax.eval_shape(lambda: architecture.init(jax.random.key(0)))


def _flatten(tree: Any) -> dict[str, Any]:
    """Return a tree's leaves by the names of their entries."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        _PREFIX + jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def _differences(names: set[str], wanted: set[str]) -> str:
    """Return what is missing and what is too many; empty if neither."""
    parts = [
        f"{what} {', '.join(sorted(found))}"
        for what, found in (("missing are", wanted - names), ("not known are", names - wanted))
        if found
    ]
    return "; ".join(parts)


def _misfits(arrays: Mapping[str, np.ndarray], specs: Mapping[str, jax.ShapeDtypeStruct]) -> str:
    """Return what does not fit in names, shapes and dtypes; empty if all does."""
    wrong = _differences(set(arrays), set(specs))
    if wrong:
        return wrong
    return "; ".join(
        f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {spec.dtype} {spec.shape}"
        for name, spec in specs.items()
        if (arrays[name].shape, arrays[name].dtype) != (spec.shape, spec.dtype)
    )


def _not_finite(arrays: Mapping[str, np.ndarray]) -> str:
    found = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    return f"not finite: {', '.join(found)}" if found else ""


def _plain_fields(weights: Weights) -> dict[str, Any]:
    """Return the fields of the architecture as JSON, checked by reading them back."""
    fields: Any = weights.architecture
    plain: dict[str, Any] = codec.to_plain(fields)
    again = _architecture({"name": weights.name, "fields": plain})
    if again != weights.architecture:
        raise errors.WeightsError(
            f"no file can hold {weights.architecture!r} as architecture {weights.name!r}"
        )
    return plain


def _architecture(described: Mapping[str, Any]) -> base.LearnedOptimizer:
    """Return the architecture of a name and fields in JSON.

    A field that is not there, because the file is older than it, has the registry's value.

    Raises:
      UnknownArchitectureError: There is no such architecture or field.
      WeightsError: A field's value is of another type.
    """
    name, fields = described["name"], described["fields"]
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise errors.WeightsError("its architecture has no name and fields")
    hints = typing.get_type_hints(type(registry.architecture(name)))
    values = {}
    for field, plain in fields.items():
        if field not in hints:
            registry.architecture(name, **{field: plain})  # Raises, with the nearest spelling.
        try:
            values[field] = codec.from_plain(hints[field], plain, field)
        except ConfigError:
            wanted = inspect.formatannotation(hints[field])
            shown = reprlib.repr(plain)
            raise errors.WeightsError(f"field {field} of {name} is {shown}, not {wanted}") from None
        if bound := _beyond(field, values[field]):
            shown = reprlib.repr(plain)
            raise errors.WeightsError(f"field {field} of {name} is {shown}; it may be {bound}")
    return registry.architecture(name, **values)


def _beyond(field: str, value: Any) -> str:
    """Return the bound that the value of a field breaks; empty if none."""
    if isinstance(value, tuple):
        if len(value) > _MAX_LENGTH:
            return f"a list of at most {_MAX_LENGTH}"
        return next((found for item in value if (found := _beyond(field, item))), "")
    if isinstance(value, str):
        return f"a text of at most {_MAX_TEXT} characters" if len(value) > _MAX_TEXT else ""
    if isinstance(value, int) and not isinstance(value, bool):
        most = _MAX_SIZES.get(field, _MAX_SIZE)
        return "" if 0 <= value <= most else f"a whole number from 0 to {most}"
    if isinstance(value, float):
        return "" if abs(value) <= _MAX_NUMBER else f"a number within +-{_MAX_NUMBER:g}"
    return ""
