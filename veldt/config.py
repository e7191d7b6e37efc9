"""Typed configs: a YAML file and command-line overrides into a frozen dataclass.

A config is a frozen dataclass, nested as its parts are, beside the code that it configures. A file
says only what differs from the defaults: a mapping that is given for a nested dataclass changes the
keys it names; a list or a `dict` replaces the default.

Overrides (`--pool.num-workers 4`, `--tasks '[{name: digits_mlp}]'`) are YAML values that are put
into the file's own tree of nodes before anything is built, so they get the same checks. tyro was
tried for them: it fixes a list's length at the default's, takes no list or dict whole, and adds
0.25 s to every start.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
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
    path = find_config(source)
    # A shipped file is named by its path in the checkout.
    name = f"configs/{path.name}" if path.parent == CONFIG_DIR else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{name}: cannot be read: {error}") from error
    return _build(cls, codec.read(text, name), overrides)


def make_config(cls: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """Make a config from its defaults and command-line words alone.

    Raises:
      ConfigError: As `load_config`.
    """
    return _build(cls, codec.empty_mapping("command line"), overrides)


def _build(cls: type[ConfigT], node: yaml.Node, overrides: Sequence[str]) -> ConfigT:
    for option, value in parse_overrides(overrides):
        override = _Override(option, value)
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


@final
@dataclasses.dataclass(frozen=True)
class _Override:
    """One command-line override: the dotted name that was typed, and the value's text."""

    option: str
    text: str

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
            # A string needs no quotes on the command line, even if YAML would read it otherwise.
            read = codec.string if annotation is str else codec.read
            return read(self.text, self._source)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):  # `Part | None`
            arms = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
            annotation = arms[0] if len(arms) == 1 else annotation
        if node is None or codec.is_null(node):
            node = self._default(annotation, base)
        if isinstance(node, yaml.SequenceNode) and keys[0].isdigit():
            return self._apply_to_list(annotation, node, keys)
        if isinstance(node, yaml.MappingNode):
            return self._apply_to_mapping(annotation, node, base, keys)
        raise self._no_such_key(annotation, keys[0])

    @property
    def _source(self) -> str:
        return f"--{self.option}"

    def _no_such_key(self, annotation: Any, key: str) -> errors.ConfigError:
        what = codec.spell(annotation)
        return errors.ConfigError(f"{self._source}: there is no {key!r} in {what}")

    def _default(self, annotation: Any, base: object) -> yaml.Node:
        # A dataclass takes the fields that a mapping leaves out from its base when it is built.
        if base is codec.MISSING or base is None or dataclasses.is_dataclass(annotation):
            return codec.empty_mapping(self._source)
        return codec.read(codec.dump(base), self._source)

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
                hint = spelling.question(key, known).replace("_", "-")
                allowed = ", ".join(name.replace("_", "-") for name in known)
                raise errors.ConfigError(
                    f"{self._source}: unknown option.{hint} Allowed here: {allowed}"
                )
            kind = known[key]
            default = codec.default_of(typing.cast(type, annotation), key, base)
        elif len(args := typing.get_args(annotation)) == 2:  # `dict[str, X]`
            kind = args[1]
        old = codec.entries(node, self.option).get(key)
        new = self.apply(kind, old, default, keys[1:])
        pairs = [(k, new if k.value == key else v) for k, v in node.value]
        if old is None:
            pairs.append((codec.string(key, self._source), new))
        return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
