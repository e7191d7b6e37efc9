"""The two ways in which a program runs inside a proxy's training loop.

`Interpreted` is data for a loop that is compiled once for all programs (`interpreter.py`).
`Compiled` is the native transform (`optax_transform.py`), for which the loop is compiled anew: it
runs anything, and faster where parameters are many, but only after a second or more of compiling.

`choose` alone decides which of them a program takes, by their costs. The two agree to float32
rounding and no further, so the choice must never depend on a clock or on what a worker happens to
have compiled: it is a function of the program, the task and the number of steps, and its constants
were measured once (`benchmarks/search_throughput.py`).

Several programs in one compiled loop ("grouped compiling") are not offered: a group's members must
be known together, where the search asks for one child at a time, and where training takes long
enough to be worth a compile, a group saves little of it. That is reasoned, and not measured.
"""

import abc
from collections.abc import Hashable
from typing import Any, Final, final

import jax
import optax

from veldt.search.errors import CapacityError
from veldt.search.language.dataflow import Dataflow
from veldt.search.runtime import encode, interpreter
from veldt.search.runtime import optax_transform as transform
from veldt.search.runtime.encode import Capacity, Encoded
from veldt.tasks.inner_loop.flat import Layout

# Processor seconds that a loop of its own takes to compile, and what it then saves over
# interpreting, in nanoseconds per instruction, parameter and step: round figures from
# `benchmarks/search_throughput.py` where it matters, at 88,090 and 301,066 parameters (4.8 to 8.8 s
# and 0.23 to 0.86 ns, on a machine with other work). Both grow alike on a slower or busier machine.
# A compiled program computes schedules at each step, which the interpreter has ready; that loss is
# not counted; for one in three it was more than the saving at 2,410 parameters.
COMPILE_S: Final = 5.0
SAVED_NS: Final = 0.35


class AbstractPath(abc.ABC):
    """The way in which one program runs inside the loop.

    Attributes:
      data: Pytree of arrays, the part of the program that is data; the loop's argument.
      compiles_as: Key of the compiled loop; paths with equal keys share one.
    """

    data: Any
    compiles_as: Hashable

    @abc.abstractmethod
    def transform(self, data: Any) -> optax.GradientTransformationExtraArgs:
        """Return the rule, in descent direction, on the flat vector of parameters [D].

        Args:
          data: Traced value of `self.data`.
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

    def __init__(self, flow: Dataflow, layout: Layout, num_steps: int):
        self.data = ()
        self.compiles_as = flow
        self._layout = layout
        self._flow = flow
        self._num_steps = num_steps

    def transform(self, data: Any) -> optax.GradientTransformationExtraArgs:
        del data
        rule = transform.scale_by_dataflow(self._flow, num_steps=self._num_steps)
        return transform.on_vector(rule, self._layout)


def choose(flow: Dataflow, layout: Layout, *, num_steps: int, capacity: Capacity) -> AbstractPath:
    """Return the path that a program takes.

    It is compiled if the interpreter lacks space or ops for it, or if one training run alone is
    worth it (`worth_compiling`). How many runs will share the loop does not count: when finals are
    resumed, only some of a job's runs are left, and they must give what they would have given.

    Args:
      flow: Program, lowered and folded.
      layout: Layout of the task's parameters.
      num_steps: Number of training steps.
      capacity: Capacity of the interpreter.
    """
    try:
        encoded = encode.encode_dataflow(flow, num_steps=num_steps, capacity=capacity)
    except CapacityError:
        return Compiled(flow, layout, num_steps)
    if worth_compiling(int(encoded.length), layout.num_params, num_steps):
        return Compiled(flow, layout, num_steps)
    return Interpreted(encoded, layout, capacity)


def worth_compiling(num_instructions: int, num_params: int, num_steps: int) -> bool:
    """Return whether a loop of its own saves more in one run than compiling it takes.

    A dozen instructions on a million parameters are worth it from 1,191 steps on, on a hundred
    thousand from 11,905.

    Args:
      num_instructions: Number of instructions that the interpreter would execute at each step.
      num_params: Number of parameters of the task.
      num_steps: Number of steps of the run.
    """
    return SAVED_NS * 1e-9 * num_instructions * num_params * num_steps > COMPILE_S
