r"""A grammar of programs in GBNF, which llama.cpp and vLLM can hold a model to.

    {"grammar": "root ::= ...", "messages": ...}                          to llama.cpp's server
    {"structured_outputs": {"grammar": "root ::= ..."}, "messages": ...}  to vLLM's

A weak model that is held to it writes programs that parse. Whatever the grammar generates, the
parser and the limits accept; it generates less than they do:

- An answer is one to four fenced blocks, each with a function whose docstring is one line.
- The state slots and the constants have fixed names, and all of them are declared; what is not used
  is dropped when the answer is read.
- Local names come in a fixed order, since a grammar cannot know what a text has defined: `k1`, `k2`
  are numbers and come first, then `t1`, `t2`, ..., which are tensors like the slots. For the same
  reason there are no instructions that make other shapes than the parameter's.
- A line has at most three instructions, since lines can be counted and instructions cannot. An
  operand that is no name or number stands in parentheses.

Rules are named by what may be read: `line21` is a tensor's expression where t1, t2 and k1 are
defined.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from veldt.search.language.ops import OPS, Op
from veldt.search.language.statements import INPUTS, READABLE
from veldt.search.llm_text.prompt_data import MAX_PROGRAMS, SLOT_NAMES

CONSTANT_NAMES: Final = ("b1", "b2", "eps", "wd")
MAX_TENSORS: Final = 4  # Local names of tensors.
MAX_NUMBERS: Final = 2  # Local names of numbers.
MAX_LINES: Final = 8  # Lines that assign tensors.
PER_LINE: Final = 3  # Instructions of one line.

_LITERAL: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]')
_TEXT: Final = """\
idea ::= "    \\"\\"\\"" [A-Z] [a-zA-Z0-9 ,.:;()+*/=-]{5,110} ".\\"\\"\\"\\n"
default ::= "-"? number
number ::= whole | whole "." digits | [1-9] ("." digits)? "e-" [1-9]
whole ::= "0" | [1-9] [0-9]? [0-9]?
digits ::= [0-9] [0-9]? [0-9]? [0-9]? [0-9]? [0-9]?"""


def gbnf(
    *, instructions: Collection[str], reads: Collection[str], num_slots: int, max_statements: int
) -> str:
    """Return a grammar whose texts are programs within the limits.

    Args:
      instructions: Names of the instructions that are allowed.
      reads: Names that may be read besides variables.
      num_slots: Number of state slots.
      max_statements: Largest number of statements of a program.
    """
    slots = SLOT_NAMES[:num_slots]
    lines = max_statements // PER_LINE
    num_numbers = MAX_NUMBERS if lines > MAX_NUMBERS + 1 else 0
    num_lines = min(max(lines - num_numbers - 1, 0), MAX_LINES)
    num_tensors = min(num_lines, MAX_TENSORS)
    calls = _calls(instructions)
    signature = ", ".join([*INPUTS, *slots, "*", ""])
    constants = ' ", '.join(f'{name}=" default' for name in CONSTANT_NAMES)
    parts = [
        " ".join(["root ::= block", *["block?"] * (MAX_PROGRAMS - 1)]),
        'block ::= "```python\\n" program "```\\n"',
        f'program ::= "def rule({signature}{constants} "):\\n" idea numbers0',
        _TEXT,
        *_number_lines(num_numbers, num_lines),
        *_tensor_lines(num_numbers, num_tensors, num_lines, slots, returns_any=lines > 0),
        *_names(num_numbers, num_tensors, slots, reads),
        *(f"{name} ::= {_either(map(_quoted, texts))}" for name, texts in calls.items() if texts),
    ]
    for tensors in range(num_tensors + 1):
        for numbers in range(num_numbers + 1):
            parts += _expressions(tensors, numbers, calls)
    return "\n".join(_reachable("\n".join(parts).split("\n"))) + "\n"


def _reachable(rules: list[str]) -> Iterator[str]:
    """Yield the rules that the first one needs."""
    bodies = dict(rule.split(" ::= ", 1) for rule in rules)
    pending, found = ["root"], {"root"}
    while pending:
        names = set(re.findall(r"[a-z]\w*", _LITERAL.sub("", bodies[pending.pop()])))
        pending += sorted(names - found)
        found |= names
    return (f"{name} ::= {body}" for name, body in bodies.items() if name in found)


def _number_lines(num_numbers: int, num_lines: int) -> Iterator[str]:
    """Yield the rules of the first lines, which assign numbers."""
    for done in range(num_numbers + 1):
        options = [f"lines0{done}x{num_lines}"]
        if done < num_numbers:
            options.append(f'"    k{done + 1} = " count0{done} "\\n" numbers{done + 1}')
        yield f"numbers{done} ::= {_either(options)}"


def _tensor_lines(
    num_numbers: int, num_tensors: int, num_lines: int, slots: tuple[str, ...], returns_any: bool
) -> Iterator[str]:
    """Yield the rules of the lines that assign tensors and of the last one.

    `lines21x3` has t1, t2 and k1 defined and three lines left.
    """
    for numbers in range(num_numbers + 1):
        for done in range(num_lines + 1):
            left = num_lines - done
            for tensors in range(min(done, num_tensors) + 1):
                known = f"{tensors}{numbers}"
                update = f"line{known}" if returns_any else f"tensor{tensors}"
                state = "".join(f' ", " tensor{tensors}' for _ in slots)
                options = [f'"    return " {update}{state} "\\n"']
                if left:
                    options += [
                        f'"    {name} = " line{known} "\\n" lines{tensors}{numbers}x{left - 1}'
                        for name in (*slots, *(f"t{i + 1}" for i in range(tensors)))
                    ]
                if left and tensors < num_tensors:
                    new = tensors + 1
                    options.append(
                        f'"    t{new} = " line{known} "\\n" lines{new}{numbers}x{left - 1}'
                    )
                yield f"lines{known}x{left} ::= {_either(options)}"


def _names(
    num_numbers: int, num_tensors: int, slots: tuple[str, ...], reads: Collection[str]
) -> Iterator[str]:
    """Yield the rules of what may be read: tensors by name, numbers by name or in digits."""
    for defined in range(num_tensors + 1):
        local = [f"t{i + 1}" for i in range(defined)]
        yield f"tensor{defined} ::= {_either(map(_quoted, [*INPUTS, *slots, *local]))}"
    readable = [name for name in READABLE if name in reads]
    for defined in range(num_numbers + 1):
        local = [f"k{i + 1}" for i in range(defined)]
        names = map(_quoted, [*CONSTANT_NAMES, *readable, *local])
        yield f"scalar{defined} ::= {_either([*names, 'number'])}"


def _calls(instructions: Collection[str]) -> Mapping[str, list[str]]:
    """Return the allowed instructions by what they take and give, under the names of rules."""
    found: dict[str, list[str]] = {
        "nullary": [],  # no argument, a number
        "unary": [],  # any kind, the same kind
        "infix": [],
        "binary": [],
        "ternary": [],
        "mapping": [],  # a tensor, a tensor
        "limiting": [],  # a tensor and a number, a tensor
        "measure": [],  # a tensor, a number
        "comparing": [],  # two tensors, a number
    }
    for op in OPS.values():
        if op.name in instructions and op.scope != "shape":
            text = f" {op.symbol} " if op.symbol else f"{op.name}("
            found[_group(op)].append(f"{op.name}()" if not op.kinds else text)
    return found


def _group(op: Op) -> str:
    if op.symbol:
        return "infix"
    if set(op.kinds) <= {"any"}:
        return ("nullary", "unary", "binary", "ternary")[op.arity]
    return {
        (("tensor",), False): "mapping",
        (("tensor", "scalar"), False): "limiting",
        (("tensor",), True): "measure",
        (("tensor", "tensor"), True): "comparing",
    }[op.kinds, op.gives_scalar]


def _expressions(tensors: int, numbers: int, calls: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield the rules of expressions where some locals are defined.

    `inside` and `side` have one instruction at most, and give a tensor; `amount` and `part` do the
    same for numbers. `side` and `part` can be an operand. `line` and `count` are whole lines.
    """
    t, n, known = f"tensor{tensors}", f"scalar{numbers}", f"{tensors}{numbers}"
    inside, side = f"inside{known}", f"side{known}"
    amount, part = f"amount{known}", f"part{known}"

    def made(*options: tuple[str, str]) -> list[str]:
        """Return the options whose instructions exist; each is named with what it is called by."""
        return [text for group, text in options if calls[group]]

    either = f"({t} | {n})"
    simple = made(("unary", f'unary {t} ")"'))
    pairs = made(("infix", f"{t} infix {either}"), ("infix", f"{n} infix {t}"))
    yield f"{inside} ::= {_either([t, *simple, *pairs])}"
    yield f"{side} ::= {_either([t, *simple, *map(_enclosed, pairs)])}"
    yield f"line{known} ::= " + _either(
        [
            inside,
            *made(
                ("infix", f"{side} infix ({side} | {part})"),
                ("infix", f"{part} infix {side}"),
                ("unary", f'unary {inside} ")"'),
                ("mapping", f'mapping {inside} ")"'),
                ("limiting", f'limiting {inside} ", " {n} ")"'),
                ("binary", f'binary {inside} ", " {either} ")"'),
                ("binary", f'binary {amount} ", " {t} ")"'),
                ("ternary", f'ternary {inside} ", " {either} ", " {either} ")"'),
                ("ternary", f'ternary {amount} ", " {t} ", " {either} ")"'),
                ("ternary", f'ternary {amount} ", " {n} ", " {t} ")"'),
            ),
        ]
    )
    simple = made(("unary", f'unary {n} ")"'), ("measure", f'measure {t} ")"'))
    pairs = made(("infix", f"{n} infix {n}"))
    yield f"{amount} ::= {_either([n, *simple, *pairs])}"
    yield f"{part} ::= {_either([n, *simple, *map(_enclosed, pairs)])}"
    yield f"count{known} ::= " + _either(
        [
            amount,
            *made(
                ("nullary", "nullary"),
                ("infix", f"{part} infix {part}"),
                ("unary", f'unary {amount} ")"'),
                ("measure", f'measure {inside} ")"'),
                ("comparing", f'comparing {inside} ", " {inside} ")"'),
                ("binary", f'binary {amount} ", " {n} ")"'),
                ("ternary", f'ternary {amount} ", " {n} ", " {n} ")"'),
            ),
        ]
    )


def _quoted(text: str) -> str:
    return f'"{text}"'


def _enclosed(text: str) -> str:
    return f'"(" {text} ")"'


def _either(options: Iterator[str] | list[str]) -> str:
    return " | ".join(options)
