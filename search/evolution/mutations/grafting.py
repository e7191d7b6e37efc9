"""Recombination: a part of a donor program that computes one value, put into another program.

The published search (Lion, arXiv 2302.06675) only mutates. But rules are made of a few parts that
return in many of them: a direction (`sign(m)`, `orthogonalize(m)`), a normaliser (`x / norm(x)`), a
scale (`sqrt(max(1, fan_out / fan_in))`, `1 - b**step`), a slot's average. `graft` takes such a part
whole: a live value of the donor with all that it depends on, slots and their updates too. It
replaces what one live statement of the recipient reads, or what is returned.

In half of the draws the part is *cut* at one of the values within it, and the recipient's own value
takes that one's place: then `x / max(1, norm(x))` normalises what the recipient had there, and a
donor cut at its gradient is a whole rule applied to it.

The donor's constants become numbers. A donor's slot whose update is written as that of a live slot
of the recipient (numbers aside, so all averages of the gradient are alike) is that slot, if its new
value is known by then; others take unused slots.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, final

import numpy as np

from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evolution.mutations import drawing
from veldt.search.evolution.mutations.donors import Donors
from veldt.search.evolution.mutations.wiring import Definition, Use, Wiring
from veldt.search.language.ops import OPS
from veldt.search.language.statements import COPY, Arg, Statement
from veldt.search.program import Program

CUT: Final = 0.5  # Share of grafts that the recipient's value goes into.
_GRADIENT: Final = "g"


def graft(
    rng: np.random.Generator, program: Program, config: MutationConfig, donors: Donors
) -> Program | None:
    """Return the program with a part of a donor in it; None where the draw cannot be made.

    Args:
      rng: Source of all randomness.
      program: Recipient.
      config: Odds of the mutations.
      donors: Programs to take a part of.
    """
    donor, host = Wiring(donors.draw(rng, config.from_rules)), Wiring(program)
    use = host.draw(rng, host.live_uses)
    kind = host.kind(use)
    values = [i for i in sorted(_statements(donor.live)) if donor.kinds[i] == kind]
    if not values:
        return None
    value = values[int(rng.integers(len(values)))]
    cut: Definition | None = None
    if host.is_computed(use) and rng.random() < CUT:
        inner = donor.closure([value]) - {value}
        cuts: list[Definition] = [i for i in sorted(_statements(inner)) if donor.kinds[i] == kind]
        if kind == "tensor" and _GRADIENT in inner:
            cuts.append(_GRADIENT)
        if not cuts:
            return None
        cut = cuts[int(rng.integers(len(cuts)))]
    everywhere = rng.random() < 0.5
    one = host.definition(use)
    readers = host.readers(one, use.position) if everywhere and one is not None else (use,)
    return _with_part(host, readers, donor, value, cut)


def _with_part(
    host: Wiring, readers: tuple[Use, ...], donor: Wiring, value: int, cut: Definition | None
) -> Program | None:
    """Return the host's program with a donor's value, computed just before the first reader.

    Returns:
      The program; None if the host has too few slots.
    """
    position = readers[0].position
    slots = _shared_slots(host, donor, position, cut)
    known = {donor.new_values[slot]: own for slot, own in slots.items()}
    leaves = {one for one in (*slots, *known, cut) if one is not None}
    needed = donor.closure([value], leaves)
    stateful = [slot for slot in donor.program.slots if slot in needed and slot != cut]
    wanting = [slot for slot in stateful if slot not in slots]
    free = [slot for slot in host.program.slots if slot not in host.live]
    if len(wanting) > len(free):
        return None
    slots |= dict(zip(wanting, free, strict=False))
    # The part reads old values of slots, whatever the host calls by their names in the meantime.
    host = Wiring(host.unshadowed(slots[slot] for slot in stateful))
    names: dict[Definition, Arg] = dict(donor.program.constants)
    names.update(slots)
    new_of = dict(zip(host.program.slots, host.program.returns[1:], strict=True))
    names |= {one: new_of[own] for one, own in known.items() if isinstance(one, int)}
    if cut is not None:
        names[cut] = host.argument(readers[0])
    part = _Part(donor, names, drawing.used_names(host.program))
    for index in sorted(_statements(needed)):
        part.add(index)
    new_of |= {slots[slot]: part.kept(slot) for slot in wanting}
    child = host.with_arguments(dict.fromkeys(readers, part.names[value]))
    returns = list(child.returns)
    for slot in wanting:
        returns[1 + host.program.slots.index(slots[slot])] = new_of[slots[slot]]
    child = replace(child, returns=tuple(returns))
    return drawing.splice(child, position, position, tuple(part.statements))


@final
class _Part:
    """The statements of a graft, under names that the host does not use."""

    def __init__(self, donor: Wiring, names: dict[Definition, Arg], used: set[str]):
        """Begin a part.

        Args:
          donor: Donor.
          names: Names and numbers in the host of what the host has already.
          used: Names that the host uses.
        """
        self.names = names
        self.statements: list[Statement] = []
        self._donor = donor
        self._used = used

    def add(self, index: int) -> None:
        """Add a statement of the donor whose arguments are there, unless the host has its value."""
        if index in self.names:
            return
        statement = self._donor.program.statements[index]
        found = zip(self._donor.definitions[index], statement.args, strict=True)
        args = tuple(arg if one is None else self._name(one) for one, arg in found)
        if statement.op == COPY:
            self.names[index] = args[0]
        else:
            self.names[index] = self._emit(statement.target, statement.op, args)

    def kept(self, slot: str) -> Arg:
        """Return a name or number for a slot's new value that lasts to the end of the program."""
        position = 1 + self._donor.program.slots.index(slot)
        one = self._donor.definitions[-1][position]
        arg = self._donor.program.returns[position] if one is None else self._name(one)
        if not isinstance(arg, str) or arg in (statement.target for statement in self.statements):
            return arg
        return self._emit(slot, COPY, (arg,))

    def _name(self, one: Definition) -> Arg:
        """Return what the host calls a definition of the donor; inputs are called alike."""
        if isinstance(one, int):
            return self.names[one]
        return self.names.get(one, one)

    def _emit(self, target: str, op: str, args: tuple[Arg, ...]) -> str:
        target = drawing.fresh(self._used) if target in self._used else target
        self._used.add(target)
        self.statements.append(Statement(target, op, args))
        return target


def _shared_slots(
    host: Wiring, donor: Wiring, position: int, cut: Definition | None
) -> dict[str, str]:
    """Return the donor's slots that a slot of the host stands for, with that slot."""
    hosts: dict[str, str] = {}
    for slot, role in _roles(host).items():
        new, place = host.new_values[slot], 1 + host.program.slots.index(slot)
        arg = host.program.returns[place]
        # A statement at the position must see the new value.
        is_known = isinstance(new, int) and new < position and isinstance(arg, str)
        if is_known and host.seen_from(position, str(arg)) == new:
            hosts.setdefault(role, slot)
    return {
        slot: hosts[role]
        for slot, role in _roles(donor).items()
        if role in hosts and (cut is None or cut not in donor.closure([slot]))
    }


def _roles(wiring: Wiring) -> dict[str, str]:
    """Return a hash of what becomes of each live slot, the same whatever the numbers in it are.

    Like `dataflow.Dataflow.structural_hash`, by refinement: other slots are first all alike.
    """
    slots = [slot for slot in wiring.program.slots if slot in wiring.live]
    roles = dict.fromkeys(slots, "slot")
    for _ in slots:
        roles = {slot: _role(wiring, roles | {slot: "self"}, slot) for slot in slots}
    return roles


def _role(wiring: Wiring, marks: Mapping[str, str], slot: str) -> str:
    """Return the hash of a slot's new value, with a mark for each slot's old value."""
    numbers = dict(wiring.program.constants)
    hashes: dict[Definition | None, str] = {None: "#"}
    hashes.update(marks)

    def of(one: Definition | None) -> str:
        return hashes.get(one) or ("#" if one in numbers else str(one))

    for index in sorted(_statements(wiring.closure([slot]))):
        statement = wiring.program.statements[index]
        parts = [of(one) for one in wiring.definitions[index]]
        if statement.op == COPY:
            hashes[index] = parts[0]
            continue
        if OPS[statement.op].commutative:
            parts.sort()
        text = f"{statement.op}({','.join(parts)})"
        hashes[index] = hashlib.sha1(text.encode()).hexdigest()
    return of(wiring.new_values[slot])


def _statements(definitions: Iterable[Definition]) -> list[int]:
    return [one for one in definitions if isinstance(one, int)]
