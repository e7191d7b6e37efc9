"""Which statement of a program reads which: definitions, uses, and the uses that matter.

`dataflow.lower` makes names disappear and equal values one. Mutations edit statements and names, so
they need this view of the text: a *definition* is the statement that computes a value, by its
position, or the name of what no statement computes (an input, a slot's old value, a constant); a
*use* is one argument of a statement, or one of the returned values. Liveness crosses iterations, as
in `dataflow.Dataflow.live`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias, final

import numpy as np

from veldt.search.evolution.mutations import drawing
from veldt.search.language import shapes
from veldt.search.language.statements import COPY, INPUTS, Arg, Statement
from veldt.search.language.types import Kind
from veldt.search.program import Program

# Share of draws that leave scalars alone. About half of what is read are numbers in corrections of
# the start and the like, which few other numbers can replace.
TENSORS: Final = 0.75

Definition: TypeAlias = int | str
"""A statement's position, or the name of an input, a slot or a constant."""


class Use(NamedTuple):
    """A place where a value is read.

    Attributes:
      position: Position of the statement; the number of statements for what is returned.
      place: Number of the argument, or of the returned value: 0 is the update.
    """

    position: int
    place: int


@final
@dataclass(frozen=True)
class Wiring:
    """The definitions and uses of a program.

    Attributes:
      program: Well-formed program.
    """

    program: Program

    @cached_property
    def rows(self) -> tuple[tuple[Arg, ...], ...]:
        """The arguments of each statement, and last what is returned."""
        return (*(statement.args for statement in self.program.statements), self.program.returns)

    @cached_property
    def definitions(self) -> tuple[tuple[Definition | None, ...], ...]:
        """The definition of each use, by position and place; None for a number."""
        latest: dict[str, Definition] = {}
        found = []
        targets = [statement.target for statement in self.program.statements]
        for position, args in enumerate(self.rows):
            found.append(
                tuple(latest.get(arg, arg) if isinstance(arg, str) else None for arg in args)
            )
            if position < len(targets):
                latest[targets[position]] = position
        return tuple(found)

    @cached_property
    def new_values(self) -> Mapping[str, Definition | None]:
        """The definition of each slot's new value; None for a number."""
        return dict(zip(self.program.slots, self.definitions[-1][1:], strict=True))

    @cached_property
    def live(self) -> frozenset[Definition]:
        """The definitions that the update depends on, now or through a slot later."""
        return self.closure(self.definitions[-1][:1])

    @cached_property
    def live_uses(self) -> tuple[Use, ...]:
        """The uses by live statements, and the returns of the update and of live slots."""
        last = len(self.program.statements)
        found = [Use(i, j) for i in range(last) if i in self.live for j in range(len(self.rows[i]))]
        found.append(Use(last, 0))
        found += [Use(last, k) for k, s in enumerate(self.program.slots, 1) if s in self.live]
        return tuple(found)

    @cached_property
    def kinds(self) -> Mapping[Definition, Kind]:
        """The kind of each definition that is read or computed."""
        kinds: dict[Definition, Kind] = dict.fromkeys(INPUTS, "tensor")
        kinds.update(shapes.slot_kinds(self.program))
        for position, statement in enumerate(self.program.statements):
            args = tuple(
                "scalar" if one is None else kinds.setdefault(one, "scalar")
                for one in self.definitions[position]
            )
            copies = statement.op == COPY
            kinds[position] = args[0] if copies else shapes.cached_result_kind(statement.op, args)
        for one in self.definitions[-1]:
            if one is not None:
                kinds.setdefault(one, "scalar")
        return kinds

    def closure(
        self, roots: Iterable[Definition | None], leaves: Iterable[Definition] = ()
    ) -> frozenset[Definition]:
        """Return `roots` and all that they depend on, through slots too, not beyond `leaves`."""
        leaves = frozenset(leaves)
        seen: set[Definition] = set()
        pending = list(roots)
        while pending:
            one = pending.pop()
            if one is None or one in seen:
                continue
            seen.add(one)
            if one in leaves:
                continue
            if isinstance(one, int):
                pending += self.definitions[one]
            elif one in self.new_values:
                pending.append(self.new_values[one])
        return frozenset(seen)

    def argument(self, use: Use) -> Arg:
        """Return the name or number at a use."""
        return self.rows[use.position][use.place]

    def definition(self, use: Use) -> Definition | None:
        """Return the definition of what a use reads; None for a number."""
        return self.definitions[use.position][use.place]

    def kind(self, use: Use) -> Kind:
        """Return the kind of what a use reads."""
        one = self.definition(use)
        return "scalar" if one is None else self.kinds[one]

    def is_computed(self, use: Use) -> bool:
        """Return whether a use reads a value of the run, and no number or tunable constant."""
        one = self.definition(use)
        return one is not None and one not in dict(self.program.constants)

    def draw(self, rng: np.random.Generator, uses: Sequence[Use]) -> Use:
        """Return one of some uses, mostly of a tensor."""
        if rng.random() < TENSORS:
            uses = [use for use in uses if self.kind(use) != "scalar"] or uses
        return uses[int(rng.integers(len(uses)))]

    def readers(self, definition: Definition, first: int = 0) -> tuple[Use, ...]:
        """Return the uses of a value by statements at the position `first` or later."""
        return tuple(
            Use(position, place)
            for position in range(first, len(self.rows))
            for place, other in enumerate(self.definitions[position])
            if other == definition
        )

    def seen_from(self, position: int, name: str) -> Definition:
        """Return the definition of a name as a statement at `position` would read it."""
        targets = self.program.statements[:position]
        found = [i for i, statement in enumerate(targets) if statement.target == name]
        return found[-1] if found else name

    def with_arguments(self, new: Mapping[Use, Arg]) -> Program:
        """Return the program with other arguments at some uses."""
        rows = [list(row) for row in self.rows]
        for use, arg in new.items():
            rows[use.position][use.place] = arg
        statements = tuple(
            replace(statement, args=tuple(row))
            for statement, row in zip(self.program.statements, rows[:-1], strict=True)
        )
        return replace(self.program, statements=statements, returns=tuple(rows[-1]))

    def unshadowed(self, names: Iterable[str]) -> Program:
        """Return the program with other names for results called like one of `names`.

        Then these names mean the inputs and the slots' old values everywhere.
        """
        names = set(names)
        used = drawing.used_names(self.program)
        renamed: dict[Definition, str] = {}
        for position, statement in enumerate(self.program.statements):
            if statement.target in names:
                renamed[position] = drawing.fresh(used)
                used.add(renamed[position])
        if not renamed:
            return self.program
        new = {
            Use(position, place): renamed[one]
            for position, row in enumerate(self.definitions)
            for place, one in enumerate(row)
            if one in renamed
        }
        program = self.with_arguments(new)
        statements = (
            replace(statement, target=renamed.get(position, statement.target))
            for position, statement in enumerate(program.statements)
        )
        return replace(program, statements=tuple(statements))

    def without_dead(self) -> Program:
        """Return the program without dead statements; dead slots keep their places."""
        statements: tuple[Statement, ...] = tuple(
            s for position, s in enumerate(self.program.statements) if position in self.live
        )
        kept = (
            new if slot in self.live else slot
            for slot, new in zip(self.program.slots, self.program.returns[1:], strict=True)
        )
        returns = (self.program.returns[0], *kept)
        return replace(self.program, statements=statements, returns=returns)
