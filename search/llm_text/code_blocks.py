"""Finding programs in the text of an answer: where each begins and ends.

A model's answer may be anything: prose, fenced blocks with a language or without, bare functions,
its thoughts between tags, a list in JSON, a text that ends in the middle. A program begins at a
line that starts with `def` and goes on as Python's indentation says. The end of a fence and another
`def` no deeper than the first always end it, so that a quote that is never closed spoils one
program only.
"""

import json
import re
from collections.abc import Iterator
from typing import Final, final

MAX_ANSWER_BYTES: Final = 100_000
# A fence, and the first line of a function.
_FENCE: Final = re.compile(r"\s*(?:```|~~~)")
_DEF: Final = re.compile(r" *def +\w+ *\(")
_ANY_DEF: Final = re.compile(r"^ *def +\w+ *\(", re.MULTILINE)
_THOUGHT: Final = re.compile(
    r"<(/?)(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)>", re.IGNORECASE
)
# Characters that mean nothing in a program: a byte order mark, and spaces without width.
_INVISIBLE: Final = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060\u00ad"))
_LIKE_ASCII: Final = {0x00A0: " ", 0x202F: " ", 0x2212: "-", 0x2028: "\n", 0x2029: "\n"}
_CONTROL: Final = {code: " " for code in (*range(32), 127, *range(128, 160)) if code != 10}
_TAB: Final = "    "


def program_texts(answer: str) -> list[str]:
    """Return the text of each function in an answer, in order, without its indentation."""
    return list(_functions(without_thoughts(_from_json(_plain(answer))).split("\n")))


def _plain(answer: str) -> str:
    """Return the text with line ends of one kind, no tabs and no characters without a form."""
    # Half a surrogate pair cannot be encoded, and so cannot be stored either.
    data = answer[:MAX_ANSWER_BYTES].encode("utf-8", errors="replace")[:MAX_ANSWER_BYTES]
    text = data.decode("utf-8", errors="ignore")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", _TAB)
    return text.translate(_INVISIBLE | _LIKE_ASCII | _CONTROL)


def _from_json(text: str) -> str:
    """Return all strings in an answer that is JSON, one after the other; else the answer."""
    if not text.lstrip().startswith(("{", "[", '"')):
        return text
    try:
        # An escaped line end may have become a real one, which only a lenient reader takes.
        found = list(_strings(json.loads(text, strict=False)))
    except (ValueError, RecursionError):
        return text
    return _plain("\n```\n".join(found))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def without_thoughts(text: str) -> str:
    """Return the text without what stands between the tags of a model's thoughts.

    A closing tag alone ends thoughts that began in the prompt, where an answer comes after it. An
    opening tag alone changes nothing: the answer ended before the thoughts did.
    """
    text = _THOUGHT.sub(r"\n\g<0>\n", text)
    kept: list[str] = []
    position, depth, opened = 0, 0, 0
    last = max((each.start() for each in _ANY_DEF.finditer(text)), default=-1)
    for tag in _THOUGHT.finditer(text):
        if not tag.group(1):
            if depth == 0:
                opened = tag.start()
            depth += 1
        elif depth > 1:
            depth -= 1
        else:
            if depth == 1:
                kept.append(text[position:opened])
            elif tag.end() <= last:
                kept.clear()
            else:
                continue
            position, depth = tag.end(), 0
    return "\n".join([*kept, text[position:]])


def _functions(lines: list[str]) -> Iterator[str]:
    block: list[str] = []
    indent = 0
    nesting = _Nesting()
    for line in lines:
        start = _DEF.match(line)
        depth = len(line) - len(line.lstrip())
        if start and (not block or depth <= indent):
            if block:
                yield _joined(block)
            block, indent, nesting = [line[depth:]], depth, _Nesting()
            nesting.read(line)
        elif block and not _FENCE.match(line) and _goes_on(line, depth, indent, nesting):
            block.append(line[min(indent, depth) :])
            nesting.read(line)
        elif block:
            yield _joined(block)
            block = []
    if block:
        yield _joined(block)


def _joined(block: list[str]) -> str:
    return "\n".join(block).rstrip() + "\n"


def _goes_on(line: str, depth: int, indent: int, nesting: "_Nesting") -> bool:
    """Return whether a line belongs to the function before it."""
    blank = not line.strip() or line.lstrip().startswith("#")
    return blank or depth > indent or nesting.is_open


@final
class _Nesting:
    """Brackets and long quotes that are open at the end of a line."""

    def __init__(self) -> None:
        self._quote = ""
        self._brackets = 0

    @property
    def is_open(self) -> bool:
        return bool(self._quote) or self._brackets > 0

    def read(self, line: str) -> None:
        """Go through one line."""
        position = 0
        while position < len(line):
            if self._quote:
                end = line.find(self._quote, position)
                if end < 0:
                    return
                position, self._quote = end + len(self._quote), ""
                continue
            char = line[position]
            if char == "#":
                return
            if char in "\"'":
                if line.startswith(3 * char, position):
                    self._quote = 3 * char
                    position += 3
                    continue
                end = line.find(char, position + 1)
                if end < 0:
                    return
                position = end
            elif char in "([{":
                self._brackets += 1
            elif char in ")]}":
                self._brackets = max(0, self._brackets - 1)
            position += 1
