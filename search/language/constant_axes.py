"""Extents: which tensor values are constant along their rows or their columns.

Extents do not change the meaning: `row_mean(x)` is a tensor with as many entries as x. But its
entries are equal along each row, so a state slot that only ever holds such values is kept as one
column [R, 1], which is what makes Adafactor's state small; a slot that holds one number per tensor
is kept as one number. Extents follow from the program alone, as do the shapes of `execute.py`.
"""

from typing import Final, NamedTuple

from veldt.search.language.dataflow import Dataflow, Input, Node
from veldt.search.language.ops import OPS


class Extent(NamedTuple):
    """The directions in which a value varies.

    Attributes:
      rows: Whether entries differ from row to row.
      columns: Whether entries differ from column to column.
    """

    rows: bool
    columns: bool

    def __or__(self, other: object) -> "Extent":
        assert isinstance(other, Extent)
        return Extent(self.rows or other.rows, self.columns or other.columns)

    @property
    def full(self) -> bool:
        """Whether it varies in both directions."""
        return self.rows and self.columns

    def shape(self, full: tuple[int, ...]) -> tuple[int, ...]:
        """Return the thin shape that broadcasts to a tensor's shape.

        All axes before the last distinguish rows, the last axis distinguishes columns.
        """
        if not full:
            return ()
        leading = full[:-1] if self.rows else (1,) * (len(full) - 1)
        return (*leading, full[-1] if self.columns else 1)


NUMBER: Final = Extent(False, False)
FULL: Final = Extent(True, True)
# Extents of the results of reductions of rows or columns.
_REDUCED: Final = {
    name: Extent(name.startswith("row_"), name.startswith("column_"))
    for name, op in OPS.items()
    if op.scope == "matrix" and name.startswith(("row_", "column_"))
}


def slot_extents(flow: Dataflow) -> dict[str, Extent]:
    """Return where each live slot may vary, over all steps; slots start at zero and may grow.

    A slot whose kind is not "tensor" counts as full.
    """
    slots = dict.fromkeys(flow.live_slots, NUMBER)
    while True:
        values = value_extents(flow, slots)
        grown = {
            name: slots[name] | values[flow.slot_updates[flow.input_index(name)]] for name in slots
        }
        if grown == slots:
            return slots
        slots = grown


def value_extents(flow: Dataflow, slots: dict[str, Extent]) -> dict[int, Extent]:
    """Return where each live value of any kind varies, if the slots vary as given."""
    found: dict[int, Extent] = {}
    for index in sorted(flow.live):
        value = flow.values[index]
        if value.kind == "scalar":
            found[index] = NUMBER
        elif isinstance(value, Input):
            found[index] = slots.get(value.name, FULL) if value.kind == "tensor" else FULL
        else:
            assert isinstance(value, Node)
            found[index] = _result(value, found)
    return found


def _result(node: Node, found: dict[int, Extent]) -> Extent:
    if node.op in _REDUCED:
        return _REDUCED[node.op]
    if OPS[node.op].scope != "element":
        return FULL
    extent = NUMBER
    for arg in node.args:
        extent = extent | found[arg]
    return extent
