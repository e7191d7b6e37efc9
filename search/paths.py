"""The two ways in which a program runs inside a proxy's training loop.

`Interpreted` is data to a loop that is compiled once for all programs (`interpreter.py`).
`Compiled` is the native transform (`transform.py`), for which the loop is compiled anew: it runs
anything, and faster where parameters are many, but only after a second or more of compiling.

`choose` says which of them a program takes, and is the one place that does.
"""

import abc
from collections.abc import Hashable
from typing import Any, final

import jax
import optax

from veldt.search import encode, interpreter, transform
from veldt.search.dataflow import Dataflow
from veldt.search.encode import Capacity, Encoded
from veldt.search.errors import CapacityError
from veldt.tasks.flat import Layout


class AbstractPath(abc.ABC):
    """How one program runs inside the loop.

    Attributes:
      data: a pytree of arrays, the program as far as it is data; the loop's argument.
      compiles_as: paths of equal value share one compiled loop.
    """

    data: Any
    compiles_as: Hashable

    @abc.abstractmethod
    def transform(self, data: Any) -> optax.GradientTransformationExtraArgs:
        """The rule, in descent direction, on the flat vector of parameters [D].

        Args:
          data: what `self.data` is; traced.
        """


@final
class Interpreted(AbstractPath):
    """An encoded program in the interpreter."""

    def __init__(self, encoded: Encoded, layout: Layout, capacity: Capacity):
        self.data = jax.device_put(encoded)
        self.compiles_as = None
        self._layout = layout
        self._capacity = capacity

    def transform(self, data: Any) -> optax.GradientTransformationExtraArgs:
        return interpreter.interpret(data, self._layout, capacity=self._capacity)


@final
class Compiled(AbstractPath):
    """A program compiled into the loop."""

    def __init__(self, flow: Dataflow, layout: Layout):
        self.data = ()
        self.compiles_as = flow
        self._layout = layout
        self._flow = flow

    def transform(self, data: Any) -> optax.GradientTransformationExtraArgs:
        del data
        return transform.on_vector(transform.scale_by_dataflow(self._flow), self._layout)


def choose(flow: Dataflow, layout: Layout, *, num_steps: int, capacity: Capacity) -> AbstractPath:
    """The path that a program takes: interpreted if the interpreter has room and ops for it.

    Args:
      flow: the program, lowered and folded.
      layout: of the task's parameters.
      num_steps: how long it is trained.
      capacity: the interpreter's.
    """
    try:
        encoded = encode.encode_dataflow(flow, num_steps=num_steps, capacity=capacity)
    except CapacityError:
        return Compiled(flow, layout)
    return Interpreted(encoded, layout, capacity)
