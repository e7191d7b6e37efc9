"""What need not be computed at every step: the first branch of `where(every(step, 10), new, old)`.

A `where` is computed lazily, new or old and not both, if three things hold: its condition is a
number that follows from the step and constants alone, and so is the same for all parameters; its
first branch has a dear instruction (`ops.Op.is_dear`); and the values of that branch are used
nowhere else. The result is the same. So Shampoo's roots and SOAP's bases cost what their period
says, in the native transform and in exports. (Under `vmap` over steps, JAX computes both.)
"""

from collections.abc import Iterable, Mapping
from typing import Final

from veldt.search.language.dataflow import Constant, Dataflow, Input, Node
from veldt.search.language.ops import OPS
from veldt.search.language.statements import PROGRESS, STEP

_SCHEDULED: Final = (STEP, PROGRESS)


def lazy_branches(flow: Dataflow) -> Mapping[int, frozenset[int]]:
    """Return the lazy choices of a program: the index of each, with those of its own branch.

    A lazy choice within another's branch is listed too.
    """
    if not any(OPS[flow.node(index).op].is_dear for index in flow.live_nodes):
        return {}
    users: dict[int, set[tuple[int, int]]] = {}
    for index in flow.live_nodes:
        for place, arg in enumerate(flow.node(index).args):
            users.setdefault(arg, set()).add((index, place))
    outputs = {flow.update, *flow.slot_updates.values()}
    scheduled = _scheduled(flow)
    found: dict[int, frozenset[int]] = {}
    for index in flow.live_nodes:
        node = flow.node(index)
        if node.op != "where" or node.args[0] not in scheduled or node.kind == "scalar":
            continue
        own: set[int] = set()
        for candidate in reversed([i for i in flow.live_nodes if i < index]):
            used_by = users.get(candidate, set())
            if candidate not in outputs and all(
                user in own or (user, place) == (index, 1) for user, place in used_by
            ):
                own.add(candidate)
        if any(OPS[flow.node(i).op].is_dear for i in own):
            found[index] = frozenset(own)
    return found


def of_main(flow: Dataflow, lazy: Iterable[frozenset[int]]) -> frozenset[int]:
    """Return the live values outside all lazy branches."""
    return flow.live - frozenset[int]().union(*lazy)


def _scheduled(flow: Dataflow) -> set[int]:
    """Return the live values that follow from step, progress and constants alone."""
    found: set[int] = set()
    for index in sorted(flow.live):
        match flow.values[index]:
            case Input(name=name, kind=kind):
                if name in _SCHEDULED and kind == "scalar":
                    found.add(index)
            case Constant():
                found.add(index)
            case Node(op=op, args=args):
                if OPS[op].scope == "element" and found.issuperset(args):
                    found.add(index)
    return found
