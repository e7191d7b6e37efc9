"""Mutations of how values are connected: children that are live by construction.

`single_edits.insert` computes a value that mostly nothing reads, and `single_edits.delete` mostly
removes what nothing read: neither is trained, since the rule is as it was. Here a value that the
update depends on is replaced, so the child is another rule:

- `rewire` puts a new statement between a live value and its reader: `update = m / d` becomes
  `x1 = sign(m)`, `update = x1 / d`. Three of four such values are tensors.
- `unwire` takes a live statement out from between its argument and its readers: `update = m / d`
  becomes `update = m`.

Either one reader or all readers from there on get the other value; each in half of the draws.
"""

from collections.abc import Sequence

import numpy as np

from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evolution.mutations import drawing
from veldt.search.evolution.mutations.wiring import Definition, Use, Wiring
from veldt.search.language.ops import OPS, Op
from veldt.search.language.statements import Statement
from veldt.search.program import Program


def rewire(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program | None:
    """Return the program with a new statement that a live one reads; None where it cannot be."""
    wiring = Wiring(program)
    uses = [use for use in wiring.live_uses if wiring.is_computed(use)]
    op = _draw_op(rng, config.instructions)
    if not uses or not op.kinds:
        return None
    use = wiring.draw(rng, uses)
    variables = drawing.variables(program, use.position, config.reads)
    args = [drawing.draw_argument(rng, variables, config) for _ in op.kinds]
    args[int(rng.integers(op.arity))] = wiring.argument(use)
    target = drawing.fresh(drawing.used_names(program))
    one = wiring.definition(use)
    assert one is not None
    readers = wiring.readers(one, use.position) if rng.random() < 0.5 else (use,)
    changed = wiring.with_arguments(dict.fromkeys(readers, target))
    new = (Statement(target, op.name, tuple(args)),)
    return drawing.splice(changed, use.position, use.position, new)


def _draw_op(rng: np.random.Generator, names: Sequence[str]) -> Op:
    """Return an instruction: first what it works on, then one of those that do.

    Two thirds of the instructions work on single elements. All as likely, the few that see a whole
    matrix, which is where a rule can differ most, would hardly be drawn.
    """
    scopes = sorted({OPS[name].scope for name in names})
    scope = scopes[int(rng.integers(len(scopes)))]
    return OPS[drawing.pick(rng, [name for name in names if OPS[name].scope == scope])]


def unwire(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program | None:
    """Return the program with one of a live statement's arguments in place of its result.

    Returns:
      The program; None where the draw cannot be made: the argument has another kind or its name
        means something else by then, or a slot would keep its old value for ever.
    """
    del config
    wiring = Wiring(program)
    uses = [use for use in wiring.live_uses if isinstance(wiring.definition(use), int)]
    if not uses:
        return None
    use = uses[int(rng.integers(len(uses)))]
    position = wiring.definition(use)
    assert isinstance(position, int)
    places = [
        place
        for place in range(len(wiring.rows[position]))
        if wiring.kind(Use(position, place)) == wiring.kinds[position]
    ]
    if not places:
        return None
    source = Use(position, places[int(rng.integers(len(places)))])
    if rng.random() < 0.5:
        child = _without(wiring, position, source)
    else:
        child = wiring.with_arguments({use: wiring.argument(source)})
        if not _reads(child, use, wiring.definition(source)):
            child = None
    return None if child is None or _freezes_a_slot(wiring, child) else child


def _without(wiring: Wiring, position: int, source: Use) -> Program | None:
    """Return the program without a statement, whose readers read one of its arguments instead."""
    readers = wiring.readers(position)
    child = wiring.with_arguments(dict.fromkeys(readers, wiring.argument(source)))
    child = drawing.splice(child, position, position + 1, ())
    moved = (Use(reader.position - 1, reader.place) for reader in readers)
    wanted = wiring.definition(source)
    return child if all(_reads(child, reader, wanted) for reader in moved) else None


def _reads(program: Program, use: Use, wanted: Definition | None) -> bool:
    """Return whether a use reads a definition, and not another of the same name."""
    return Wiring(program).definition(use) == wanted


def _freezes_a_slot(before: Wiring, child: Program) -> bool:
    """Return whether a slot that is needed would only ever keep its old value, which is zero."""
    after = Wiring(child)
    return any(
        slot in after.live and new == slot and before.new_values[slot] != slot
        for slot, new in after.new_values.items()
    )
