"""Symbols: how the names of a program are written in a formula.

One letter stays a letter, a Greek letter's name becomes the letter, digits and further words go
below (`w0` is w_0, `m_slow` is m_slow) and `_hat`, `_bar` and `_tilde` above; any other name is
upright. Constants have the field's symbols: `b1` is beta_1, `eps` epsilon, `wd` lambda. Whatever
the names are, different ones get different symbols.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, final

# Fixed symbols: the language's own values, by name. Those of tensors that change get an index.
STEP: Final = "t"
RATE: Final = r"\eta"
LOSS: Final = r"\ell"
PROGRESS: Final = r"\tau"
NUM_STEPS: Final = "T"

_ACCENTS: Final = ("hat", "bar", "tilde")
_GREEK: Final = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "theta", "iota", "kappa", "lambda", "mu",
    "nu", "xi", "rho", "sigma", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda",
    "Xi", "Sigma", "Phi", "Psi", "Omega",
)  # fmt: skip
_MAX_NAME: Final = 32


@final
@dataclass(frozen=True, slots=True)
class Symbol:
    """A name in a formula, without its time.

    Attributes:
      base: Letter or upright word.
      subscripts: What stands below it.
      primes: Number of primes, for a name that is given twice.
    """

    base: str
    subscripts: tuple[str, ...] = ()
    primes: int = 0

    def at(self, time: str | None = None) -> str:
        """Return the LaTeX of the symbol at a time; None is for what does not change."""
        below = ",".join([*self.subscripts, *([] if time is None else [time])])
        return self.base + "'" * self.primes + (f"_{{{below}}}" if below else "")


WEIGHTS: Final = Symbol("w")
GRADIENT: Final = Symbol("g")
_RESERVED: Final = frozenset(
    Symbol(base) for base in ("w", "g", "I", r"\pi", STEP, RATE, LOSS, PROGRESS, NUM_STEPS)
)


@final
class Symbols:
    """Gives out symbols, each of them once."""

    def __init__(self) -> None:
        self._taken = set(_RESERVED)
        # What has a value at step 0, which looks as a name that ends in 0.
        self._starting = {WEIGHTS, GRADIENT}

    def of_slot(self, name: str) -> Symbol:
        """Return the symbol of a slot."""
        found = self.choose(name, changes=True)
        self._starting.add(found)
        return found

    def choose(self, name: str, *, changes: bool, is_constant: bool = False) -> Symbol:
        """Return the symbol of a name, or one like it where that is taken.

        Args:
          name: Name in the program.
          changes: Whether the symbol is written with the step.
          is_constant: Whether it is a tunable constant.
        """
        wished = _symbol(name, is_constant)
        misread = not changes and wished.subscripts[-1:] == ("0",)
        if misread and replace(wished, subscripts=wished.subscripts[:-1]) in self._starting:
            return self._take(Symbol(_upright(name)))
        if wished in (WEIGHTS, GRADIENT) or wished not in _RESERVED:
            return self._take(wished)
        return self._take(Symbol(_upright(name)))

    def number(self, base: str) -> Symbol:
        """Return a symbol with the first number below it that is free."""
        number = 1
        while Symbol(base, (str(number),)) in self._taken:
            number += 1
        return self._take(Symbol(base, (str(number),)))

    def first_free(self, *bases: str) -> Symbol:
        """Return the first of some letters that is free, or else the last with a prime."""
        free = [Symbol(base) for base in bases if Symbol(base) not in self._taken]
        return self._take(free[0] if free else Symbol(bases[-1]))

    def _take(self, wished: Symbol) -> Symbol:
        found = wished
        while found in self._taken:
            found = replace(found, primes=found.primes + 1)
        self._taken.add(found)
        return found


def _symbol(name: str, is_constant: bool) -> Symbol:
    head, *rest = [part for part in re.split(r"[^A-Za-z0-9]+", name) if part] or ["x"]
    match = re.fullmatch(r"([A-Za-z]+)(\d*)", head)
    if match is None:
        return Symbol(_upright(f"x{name}"))
    letters, digits = match.groups()
    if letters in _GREEK:
        base = f"\\{letters}"
    elif letters == "eps":
        base = r"\varepsilon"
    elif is_constant and letters == "wd":
        base = r"\lambda"
    elif is_constant and letters == "b" and digits:
        base = r"\beta"
    elif len(letters) == 1:
        base = letters
    else:
        return Symbol(_upright(name))
    if rest and rest[0] in _ACCENTS:
        base, rest = f"\\{rest[0]}{{{base}}}", rest[1:]
    below = [*([digits] if digits else []), *(p if p.isdigit() else _upright(p) for p in rest)]
    return Symbol(base, tuple(below))


def _upright(name: str) -> str:
    """Return a name in upright letters."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_MAX_NAME] or "x"
    return rf"\mathrm{{{plain}}}".replace("_", r"\_")
