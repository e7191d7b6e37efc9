"""Random texts of a grammar in GBNF: a stand-in for a model that knows the grammar and no more.

Each alternative of a rule is as likely as the others, and so is each number of repetitions. Only
what `veldt list grammar` writes of GBNF is understood: rules on one line, quoted texts, classes of
characters, groups, `?` and `{m,n}`. It knows nothing of veldt's parser, so that tests can compare
the two.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, final

import numpy as np

Draw = Callable[[np.random.Generator], Iterator[str]]

_TOKEN: Final = re.compile(
    r'\s*(?:"((?:[^"\\]|\\.)*)"|\[((?:[^\]\\]|\\.)*)\]|([\w-]+)|([()|?*+])|\{(\d+),(\d+)\})'
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


@final
class Grammar:
    """A grammar that texts can be drawn from."""

    def __init__(self, text: str):
        """Read a grammar.

        Raises:
          ValueError: The text is no grammar, or a rule is named that there is not.
        """
        self._rules: dict[str, Draw] = {}
        self._named: set[str] = set()
        for line in text.splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, mark, body = line.partition("::=")
            if not mark or name.strip() in self._rules:
                raise ValueError(f"no rule, or one that is there twice: {line!r}")
            self._rules[name.strip()] = self._read(body)
        missing = self._named - self._rules.keys()
        if missing:
            raise ValueError(f"rules are missing: {', '.join(sorted(missing))}")

    @property
    def unused(self) -> set[str]:
        """The rules that no other rule names."""
        return self._rules.keys() - self._named - {"root"}

    def sample(self, rng: np.random.Generator, rule: str = "root") -> str:
        """Return a random text of a rule; the generator is advanced."""
        return "".join(self._rules[rule](rng))

    def _read(self, body: str) -> Draw:
        tokens: list[tuple[str, ...]] = []
        position = 0
        body = body.rstrip()
        while position < len(body):
            found = _TOKEN.match(body, position)
            if found is None:
                raise ValueError(f"cannot be read: {body[position : position + 40]!r}")
            tokens.append(tuple(part if part is not None else "" for part in found.groups()))
            is_text = found.group(1) is not None
            tokens[-1] = (*tokens[-1], "text" if is_text else "")
            position = found.end()
        tokens.reverse()
        draw = self._alternatives(tokens)
        if tokens:
            raise ValueError(f"a bracket too many: {body!r}")
        return draw

    def _alternatives(self, tokens: list[tuple[str, ...]]) -> Draw:
        options: list[list[Draw]] = [[]]
        while tokens and tokens[-1][3] != ")":
            text, characters, name, sign, least, most, is_text = tokens.pop()
            if sign == "|":
                options.append([])
            elif sign == "?" or least:
                inner = options[-1].pop()
                options[-1].append(_repeated(inner, int(least or 0), int(most or 1)))
            elif sign == "(":
                options[-1].append(self._alternatives(tokens))
                if not tokens:
                    raise ValueError("a bracket is not closed")
                tokens.pop()
            elif sign:
                raise ValueError(f"{sign} has no end, and nothing here generates it")
            elif is_text:
                options[-1].append(_constant(_unescaped(text)))
            elif characters:
                options[-1].append(_choice(_members(characters)))
            else:
                self._named.add(name)
                options[-1].append(self._rule(name))
        return _either(options)

    def _rule(self, name: str) -> Draw:
        return lambda rng: self._rules[name](rng)


def _constant(text: str) -> Draw:
    return lambda rng: iter((text,))


def _choice(characters: str) -> Draw:
    return lambda rng: iter((characters[int(rng.integers(len(characters)))],))


def _repeated(inner: Draw, least: int, most: int) -> Draw:
    def draw(rng: np.random.Generator) -> Iterator[str]:
        for _ in range(int(rng.integers(least, most + 1))):
            yield from inner(rng)

    return draw


def _either(options: list[list[Draw]]) -> Draw:
    def draw(rng: np.random.Generator) -> Iterator[str]:
        for part in options[int(rng.integers(len(options)))]:
            yield from part(rng)

    return draw


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found.group(1), found.group(1)), text)


def _members(characters: str) -> str:
    """Return all characters of a class such as `a-z0-9-`."""
    found = re.findall(r"(\\?.)(?:-(\\?.))?", characters)
    return "".join(
        chr(code)
        for first, last in found
        for code in range(ord(_unescaped(first)), ord(_unescaped(last or first)) + 1)
    )
