"""Typed configs: a YAML file and command-line overrides into a frozen dataclass.

A config is a frozen dataclass, nested as its parts are, beside the code that it configures. A file
says only what differs from the defaults: a mapping that is given for a nested dataclass changes the
keys it names; a list or a `dict` replaces the default.

Overrides (`--pool.num-workers 4`, `--tasks '[{name: digits_mlp}]'`) are YAML values that are put
into the file's own tree of nodes before anything is built, so they get the same checks. tyro was
tried for them: it fixes a list's length at the default's, takes no list or dict whole, and adds
0.25 s to every start.
"""

import abc
import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

import yaml

from veldt.tasks.common import errors, spelling
from veldt.tasks.common.config import codec

ConfigT = TypeVar("ConfigT")
CONFIG_DIR = Path(__file__).parent / "configs"


def load_config(cls: type[ConfigT], source: str | Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Load a config.

    Args:
      cls: Frozen dataclass to make.
      source: Path of a YAML file, or the name of a file in `configs/`.
      overrides: Command-line words, `--field value` or `--field=value`; the value is YAML, a
          nested field is named with dots, and dashes stand for underscores.

    Raises:
      ConfigError: No such file, not YAML, an unknown or missing key, a value of the wrong type,
          or one that the dataclass refuses; the message names key, place and what is allowed.
    """
    return _build(cls, _read(source), overrides)


def _read(source: str | Path) -> yaml.Node:
    """Return the content of a config's file."""
    path = find_config(source)
    # A shipped file is named by its path in the checkout.
    name = f"configs/{path.name}" if path.parent == CONFIG_DIR else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{name}: cannot be read: {error}") from error
    return codec.read(text, name)


def load_with(
    cls: type[ConfigT],
    base: str | Path | ConfigT | Mapping[str, Any],
    values: Mapping[str, Any],
    caller: str,
) -> ConfigT:
    """Load a config, with fields from Python in place of its own.

    Args:
      cls: Frozen dataclass to make.
      base: Path of a YAML file, the name of a file in `configs/`, a config, or its plain values.
      values: Plain values by field; a nested field is named with dots, or by a mapping of a mapping
        for a nested dataclass, whose other fields stay.
      caller: Function that the values were given to, for messages: "discover()".

    Raises:
      ConfigError: As `load_config`; the message names the function.
    """
    match base:
        case str() | Path():
            node = _read(base)
        case Mapping():
            node = codec.node_of(base, caller)
        case _:
            node = codec.node_of(codec.to_plain(base), caller)
    for name, value in _flat(cls, values):
        node = _Keyword(name, value, caller).apply(cls, node, codec.MISSING, name.split("."))
    config: ConfigT = codec.build(cls, node)
    return config


def _flat(cls: type, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield fields by dotted names, those of a mapping for a nested dataclass one by one."""
    known = codec.hints(cls)
    for name, value in values.items():
        annotation = known.get(name)
        part = _present(annotation)
        # An empty mapping for `Part | None` is a part with its defaults.
        nested = isinstance(value, Mapping) and (value or part is annotation)
        if nested and dataclasses.is_dataclass(part):
            inner = _flat(typing.cast(type, part), value)
            yield from ((f"{name}.{key}", item) for key, item in inner)
        else:
            yield name, value


def make_config(cls: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """Make a config from its defaults and command-line words alone.

    Raises:
      ConfigError: As `load_config`.
    """
    return _build(cls, codec.empty_mapping("command line"), overrides)


def _build(cls: type[ConfigT], node: yaml.Node, overrides: Sequence[str]) -> ConfigT:
    for option, value in parse_overrides(overrides):
        override = _Option(option, value)
        node = override.apply(cls, node, codec.MISSING, option.split("."))
    config: ConfigT = codec.build(cls, node)
    return config


def find_config(source: str | Path) -> Path:
    """Return the file of a config's path or name.

    Raises:
      ConfigError: There is none; the message lists the names that exist.
    """
    path = Path(source)
    if path.is_file():
        return path
    named = CONFIG_DIR / f"{source}.yaml"
    if path.name == str(source) and named.is_file():
        return named
    if path.suffix in (".yaml", ".yml") or path.name != str(source):
        raise errors.ConfigError(f"there is no config file {source}")
    names = [info.name for info in list_configs()]
    raise errors.ConfigError(
        f"there is no config named {str(source)!r}.{spelling.question(str(source), names)} "
        f"Shipped configs: {', '.join(names) or 'none'}; or give a YAML file's path"
    )


@final
@dataclasses.dataclass(frozen=True)
class ConfigInfo:
    """One shipped config: its name, and the first comment line of the file."""

    name: str
    description: str


def list_configs(folder: Path = CONFIG_DIR) -> tuple[ConfigInfo, ...]:
    """Return the shipped configs, by name."""
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        rows.append(ConfigInfo(path.stem, first.lstrip("# ") if first.startswith("#") else ""))
    return tuple(rows)


def parse_overrides(words: Sequence[str]) -> list[tuple[str, str]]:
    """Split command-line words into pairs of a dotted field name and its value's text.

    Raises:
      ConfigError: A word that is no option, or an option without a value.
    """
    pairs = []
    rest = iter(words)
    for word in rest:
        if not re.match(r"--[A-Za-z_]", word):
            raise errors.ConfigError(
                f"unexpected argument {word!r}; a field is set by --field value"
            )
        name, equals, value = word[2:].partition("=")
        if not equals:
            following = next(rest, None)
            if following is None or re.match(r"--[A-Za-z_]", following):
                raise errors.ConfigError(f"--{name} needs a value: --{name} value")
            value = following
        pairs.append((name, value))
    return pairs


def _present(annotation: Any) -> Any:
    """Return `Part` for `Part | None`, and any other annotation as it is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        arms = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return arms[0] if len(arms) == 1 else annotation
    return annotation


class _Override(abc.ABC):
    """A value that takes the place of one in a tree of nodes."""

    @property
    @abc.abstractmethod
    def source(self) -> str:
        """The origin of the value, for messages."""

    @abc.abstractmethod
    def value(self, annotation: Any) -> yaml.Node:
        """Return the node of the value, for a field of this type."""

    @abc.abstractmethod
    def unknown(self, key: str, known: Iterable[str]) -> errors.ConfigError:
        """Return the error of a name that is no field."""

    @final
    def apply(
        self, annotation: Any, node: yaml.Node | None, base: object, keys: Sequence[str]
    ) -> yaml.Node:
        """Return the tree with one value replaced; the tree itself is left as it is.

        Args:
          annotation: Type of the tree.
          node: Tree; None if the file does not have it.
          base: Default at this place if the file does not have it.
          keys: Path to the value.
        """
        if not keys:
            return self.value(annotation)
        annotation = _present(annotation)
        if node is None or codec.is_null(node):
            node = self._default(annotation, base)
        if isinstance(node, yaml.SequenceNode) and keys[0].isdigit():
            return self._apply_to_list(annotation, node, keys)
        if isinstance(node, yaml.MappingNode):
            return self._apply_to_mapping(annotation, node, base, keys)
        raise self._no_such_key(annotation, keys[0])

    def _no_such_key(self, annotation: Any, key: str) -> errors.ConfigError:
        what = codec.spell(annotation)
        return errors.ConfigError(f"{self.source}: there is no {key!r} in {what}")

    def _default(self, annotation: Any, base: object) -> yaml.Node:
        # A dataclass takes the fields that a mapping leaves out from its base when it is built.
        if base is codec.MISSING or base is None or dataclasses.is_dataclass(annotation):
            return codec.empty_mapping(self.source)
        return codec.read(codec.dump(base), self.source)

    def _apply_to_list(
        self, annotation: Any, node: yaml.SequenceNode, keys: Sequence[str]
    ) -> yaml.Node:
        index = int(keys[0])
        kinds = codec.item_annotations(annotation, len(node.value))
        if index >= min(len(kinds), len(node.value)):
            raise self._no_such_key(annotation, keys[0])
        items = list(node.value)
        items[index] = self.apply(kinds[index], items[index], codec.MISSING, keys[1:])
        return yaml.SequenceNode(node.tag, items, node.start_mark, node.end_mark)

    def _apply_to_mapping(
        self, annotation: Any, node: yaml.MappingNode, base: object, keys: Sequence[str]
    ) -> yaml.Node:
        key: str = keys[0]
        kind: Any = None
        default: object = codec.MISSING
        if dataclasses.is_dataclass(annotation):
            key = key.replace("-", "_")
            known = codec.hints(typing.cast(type, annotation))
            if key not in known:
                raise self.unknown(key, known)
            kind = known[key]
            default = codec.default_of(typing.cast(type, annotation), key, base)
        elif len(args := typing.get_args(annotation)) == 2:  # `dict[str, X]`
            kind = args[1]
        old = codec.entries(node, self.source.removeprefix("--")).get(key)
        new = self.apply(kind, old, default, keys[1:])
        pairs = [(k, new if k.value == key else v) for k, v in node.value]
        if old is None:
            pairs.append((codec.string(key, self.source), new))
        return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)


@final
@dataclasses.dataclass(frozen=True)
class _Option(_Override):
    """A command-line override.

    Attributes:
      option: Dotted name that was typed.
      text: Text of the value.
    """

    option: str
    text: str

    @property
    def source(self) -> str:
        return f"--{self.option}"

    def value(self, annotation: Any) -> yaml.Node:
        # A string needs no quotes on the command line, even if YAML would read it otherwise.
        read = codec.string if annotation is str else codec.read
        return read(self.text, self.source)

    def unknown(self, key: str, known: Iterable[str]) -> errors.ConfigError:
        hint = spelling.question(key, known).replace("_", "-")
        allowed = ", ".join(name.replace("_", "-") for name in known)
        return errors.ConfigError(f"{self.source}: unknown option.{hint} Allowed here: {allowed}")


@final
@dataclasses.dataclass(frozen=True)
class _Keyword(_Override):
    """A keyword argument.

    Attributes:
      name: Dotted name.
      given: Plain value.
      caller: Function that it was given to.
    """

    name: str
    given: Any
    caller: str

    @property
    def source(self) -> str:
        return self.caller

    def value(self, annotation: Any) -> yaml.Node:
        return codec.node_of(self.given, self.caller)

    def unknown(self, key: str, known: Iterable[str]) -> errors.ConfigError:
        hint = spelling.question(key, known)
        return errors.ConfigError(
            f"{self.caller}: there is no field {self.name!r}.{hint} Allowed here: "
            f"{', '.join(known)}"
        )
