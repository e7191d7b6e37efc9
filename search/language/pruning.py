"""Pruning: removing what a program does not need, exactly.

Updates stay as they are to the last bit, but for numbers folded; it is fast enough for every child
of a search. Each step is sound by construction: dead statements and dead state are removed (across
iterations, `dataflow.Dataflow.live`), equal values are computed once, names that only copy are
removed, and instructions on plain numbers are computed. Constants that nothing live reads go too.
"""

from collections.abc import Iterator, Sequence

from veldt.search.language import dataflow
from veldt.search.language.dataflow import Constant, Dataflow, Input, Node
from veldt.search.language.ops import OPS
from veldt.search.language.statements import (
    INPUTS,
    READABLE,
    AbstractProgram,
    AnyProgram,
    Arg,
    Statement,
    format_arg,
)


def prune(program: AnyProgram) -> AnyProgram:
    """Drop what the update does not depend on; updates are equal but for numbers folded."""
    return to_program(dataflow.lower(program), program)


def to_program(flow: Dataflow, like: AnyProgram) -> AnyProgram:
    """Write a graph of values as a program again.

    Args:
      flow: Lowered form of `like`.
      like: Program with the rule's name, the docstring and, where they still fit, variable names.
    """
    slots = flow.live_slots
    live = sorted(flow.live)
    values = flow.values
    used = {v.name for v in map(values.__getitem__, live) if type(v) is Constant}
    constants = tuple((name, value) for name, value in like.constants if name in used)
    taken = {*INPUTS, *READABLE, *slots, *(name for name, _ in constants), *OPS}
    new_slot = {flow.new_slots[flow.slots.index(name)]: name for name in slots}
    names: dict[int, Arg] = {}
    statements: list[Statement] = []
    fresh = _fresh_names(taken)
    for index in live:
        value = values[index]
        if type(value) is Node:
            if index == flow.update and index not in new_slot and "update" not in taken:
                target = "update"
            else:
                target = f"{new_slot[index]}_new" if index in new_slot else next(fresh)
                target = target if target not in taken else next(fresh)
            taken.add(target)
            names[index] = target
            statements.append(Statement(target, value.op, tuple([names[a] for a in value.args])))
        elif type(value) is Constant:
            names[index] = value.value if value.name is None else value.name
        else:
            assert type(value) is Input
            names[index] = value.name
    returns = [names[flow.update]]
    returns += [names[flow.new_slots[flow.slots.index(name)]] for name in slots]
    _reuse_slot_names(slots, statements, returns)
    return type(like)(like.name, slots, constants, tuple(statements), tuple(returns), like.doc)


def live_code(program: AbstractProgram) -> tuple[tuple[str, ...], ...]:
    """Return the text that the update may depend on, by names alone: much cheaper than lowering.

    Programs with the same live code have the same graph of live values, but for its order.

    Returns:
      The update; the live slots and their new values; the constants that are read; the statements,
      the last one first. Numbers as text, since -0.0 is another number than 0.0, and equal to it.
    """
    new_values = dict(zip(program.slots, program.returns[1:], strict=True))
    slots: set[str] = set()
    while True:
        needed: set[Arg] = {program.returns[0], *(new_values[slot] for slot in slots)}
        statements = []
        for statement in reversed(program.statements):
            if statement.target in needed:
                needed.remove(statement.target)
                needed.update(statement.args)
                statements.append(statement)
        found = {slot for slot in new_values if slot in needed}
        if found <= slots:
            break
        slots |= found  # What a slot becomes is needed too.
    return (
        (format_arg(program.returns[0]),),
        tuple([f"{s} = {format_arg(new_values[s])}" for s in program.slots if s in slots]),
        tuple([f"{name} = {value!r}" for name, value in program.constants if name in needed]),
        tuple(map(str, statements)),
    )


def _fresh_names(taken: set[str]) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        name = f"t{number}"
        if name not in taken:
            yield name


def _reuse_slot_names(
    slots: Sequence[str], statements: list[Statement], returns: list[Arg]
) -> None:
    """Call a slot's new value by the slot's name if the old is not read again, as people do."""
    for position, slot in enumerate(slots, 1):
        new = f"{slot}_new"
        if returns[position] != new or slot in returns:
            continue
        where = next((i for i, s in enumerate(statements) if s.target == new), None)
        if where is None or any(slot in s.args for s in statements[where + 1 :]):
            continue
        statements[where] = Statement(slot, statements[where].op, statements[where].args)
        for i in range(where + 1, len(statements)):
            target, op, args = statements[i].target, statements[i].op, statements[i].args
            if new in args:
                args = tuple([slot if arg == new else arg for arg in args])
                statements[i] = Statement(target, op, args)
        returns[:] = [slot if arg == new else arg for arg in returns]
