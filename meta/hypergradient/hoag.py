"""HOAG: hyperparameter optimization with an approximate gradient.

Pedregosa 2016 (arXiv 1602.02355, algorithm 1; github.com/fabianp/hoag). In iteration k, with a
tolerance ε_k whose sum is finite,

1. train, from the last parameters, until ‖∇_w L_T‖ <= ε_k ‖∇_w L_T at the start‖;
2. solve H q = ∇_w L_V by conjugate gradients to a relative residual of ε_k;
3. λ <- P(λ - p / L), p the hypergradient and P the projection onto a box.

The step 1 / L adapts itself: with Δ the length of the step and C = 1/4, L shrinks by 0.95 where
L_V fell as far as L lets expect, L_V <= old + C ε_k + ε_{k-1} (C + 1) Δ - L Δ² / 2, and doubles
where it rose. A rise by a fifth is not accepted: λ and w go back, and tolerances halve from there
on.

Departures from the authors' code: there, a step is judged by the length of the one after it, and a
rejected step leaves λ where the loss is high; here the length is that of the step that is judged,
and λ returns. The newest version asks for a fall of L Δ², to which no exact step on a convex
function comes, and leaves L where the loss rises by less than a fifth; the older version's L Δ² / 2
and doubling are followed. The box is [-6, 6], as there. Training is by Optax's L-BFGS.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import final

import flax.struct
import jax
import jax.numpy as jnp
import optax

from veldt.meta import pytree
from veldt.meta.hypergradient import bilevel, implicit
from veldt.meta.problems import inner_problem
from veldt.tasks.common import types

_MIN_TOLERANCE = 1e-12  # As in the authors' code.
_SLACK = 0.25  # C


class Tolerance(pytree.Pytree, abc.ABC):
    """ε_k, a sequence with a finite sum. Subclasses are final frozen dataclasses."""

    @abc.abstractmethod
    def at(self, step: types.Scalar) -> types.Scalar:
        """Return ε of iteration `step` (from 0; -1 may be asked for), float []."""


@final
@dataclasses.dataclass(frozen=True)
class Geometric(Tolerance):
    """initial · decay^k, the paper's "exponential" with its numbers.

    Attributes:
      initial: The first tolerance, ε_0.
      decay: Factor of the tolerance from iteration to iteration.
    """

    initial: float | jax.Array = 0.1
    decay: float | jax.Array = 0.9

    def at(self, step: types.Scalar) -> types.Scalar:
        return self.initial * jnp.asarray(self.decay) ** step


@final
@dataclasses.dataclass(frozen=True)
class Power(Tolerance):
    """initial · (k + 1)^-exponent: the paper's "quadratic" and, with 3, its "cubic".

    Attributes:
      initial: The first tolerance, ε_0.
      exponent: More than 1.
    """

    initial: float | jax.Array = 0.1
    exponent: float | jax.Array = 2.0

    def at(self, step: types.Scalar) -> types.Scalar:
        return self.initial * jnp.maximum(step + 1.0, 1.0) ** -jnp.asarray(self.exponent)


@flax.struct.dataclass
class HoagState:
    """The state of HOAG: an accepted λ, what was found there, and the size of the next step.

    Before the first step nothing is found: its loss is infinite, its gradient zero.

    Attributes:
      params: Parameters, w, trained at `hyper` to the tolerance of the iteration.
      hyper: Hyperparameters, λ.
      found: The hypergradient there.
      lipschitz: Lipschitz constant, L, one over the step size, float [].
      tightening: What rejections have multiplied the tolerances by, float [].
      initial_norm: ‖∇_w L_T‖ at the very start, float []: the unit of tolerances.
      step: Iterations done, int32 [].
    """

    params: types.Params
    hyper: bilevel.HyperParams
    found: implicit.Hypergradient
    lipschitz: types.Scalar
    tightening: types.Scalar
    initial_norm: types.Scalar
    step: types.Scalar


@final
@dataclasses.dataclass(frozen=True)
class Hoag(bilevel.HyperOptimizer):
    """HOAG; for smooth training losses, convex at least around their minimum.

    Attributes:
      tolerance: Tolerances of the iterations, ε_k.
      lower: Least value of a hyperparameter.
      upper: Greatest value of a hyperparameter.
      max_train_steps: The largest number of steps of L-BFGS in an iteration.
      max_solver_steps: The largest number of steps of conjugate gradients in an iteration.
    """

    tolerance: Tolerance = dataclasses.field(default_factory=Geometric)
    lower: float | jax.Array = -6.0
    upper: float | jax.Array = 6.0
    max_train_steps: int = dataclasses.field(default=200, metadata=pytree.STATIC)
    max_solver_steps: int = dataclasses.field(default=200, metadata=pytree.STATIC)

    def init(
        self, problem: bilevel.BilevelProblem, params: types.Params, hyper: bilevel.HyperParams
    ) -> HoagState:
        initial_norm = optax.tree.norm(jax.grad(problem.train_loss)(params, hyper))
        initial_norm = jnp.where(initial_norm > 0, initial_norm, 1.0)  # It is only a unit.
        found = implicit.Hypergradient(
            valid_loss=jnp.full_like(initial_norm, jnp.inf),
            grad=jax.tree.map(jnp.zeros_like, hyper),
            solution=jax.tree.map(jnp.zeros_like, params),
        )
        return HoagState(
            params=params,
            hyper=hyper,
            found=found,
            lipschitz=jnp.ones_like(initial_norm),
            tightening=jnp.ones_like(initial_norm),
            initial_norm=initial_norm,
            step=jnp.zeros((), jnp.int32),
        )

    def step(
        self, problem: bilevel.BilevelProblem, state: HoagState, key: types.Key
    ) -> tuple[HoagState, bilevel.BilevelLosses]:
        """Do one iteration; the first trains under the given hyperparameters and leaves them."""
        del key
        lipschitz = state.lipschitz
        hyper = optax.tree.add_scale(state.hyper, -1.0 / lipschitz, state.found.grad)
        hyper = optax.tree.clip(hyper, self.lower, self.upper)
        length = optax.tree.norm(optax.tree.sub(hyper, state.hyper))

        last = self._tolerance_at(state.step - 1, state.tightening)
        tolerance = self._tolerance_at(state.step, state.tightening)
        params = minimize(
            lambda w: problem.train_loss(w, hyper),
            state.params,
            tolerance * state.initial_norm,
            self.max_train_steps,
        )
        inverse = implicit.ConjugateGradient(tolerance, max_steps=self.max_solver_steps)
        found = implicit.hypergradient(problem, inverse, params, hyper, state.found.solution)

        old, new = state.found.valid_loss, found.valid_loss
        is_accepted = new < old + 0.2 * jnp.abs(old)  # Not if it is NaN.
        bound = last * (_SLACK + 1.0) * length - 0.5 * lipschitz * length**2
        is_ample = new <= old + _SLACK * tolerance + bound
        is_higher = new > old + _SLACK * tolerance
        factor = jnp.where(is_ample, 0.95, jnp.where(is_higher, 2.0, 1.0))
        reached = HoagState(
            params=params,
            hyper=hyper,
            found=found,
            lipschitz=jnp.where(state.step == 0, _first_lipschitz(found.grad), lipschitz * factor),
            tightening=state.tightening,
            initial_norm=state.initial_norm,
            step=state.step + 1,
        )
        returned = dataclasses.replace(
            state,
            lipschitz=2.0 * lipschitz,
            tightening=0.5 * state.tightening,
            step=state.step + 1,
        )
        state = inner_problem.select(is_accepted, reached, returned)
        return state, bilevel.measure(problem, state.params, state.hyper)

    def _tolerance_at(self, step: types.Scalar, tightening: types.Scalar) -> types.Scalar:
        return jnp.maximum(self.tolerance.at(step) * tightening, _MIN_TOLERANCE)


def minimize(
    loss: Callable[[types.Params], types.Scalar],
    params: types.Params,
    max_norm: types.Scalar,
    max_steps: int,
) -> types.Params:
    """Minimize a smooth function by L-BFGS until the norm of its gradient is at most `max_norm`.

    Args:
      loss: The function.
      params: Where to begin.
      max_norm: Float [].
      max_steps: The largest number of steps.

    Returns:
      The parameters reached.
    """
    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def goes_on(carry: tuple[types.Params, types.OptState, jax.Array, jax.Array]) -> jax.Array:
        _, _, norm, step = carry
        return (norm > max_norm) & (step < max_steps)

    def body(
        carry: tuple[types.Params, types.OptState, jax.Array, jax.Array],
    ) -> tuple[types.Params, types.OptState, jax.Array, jax.Array]:
        params, opt_state, _, step = carry
        value, grads = value_and_grad(params, state=opt_state)
        updates, opt_state = tx.update(
            grads, opt_state, params, value=value, grad=grads, value_fn=loss
        )
        params = optax.apply_updates(params, updates)
        # The line search has evaluated the gradient where it ended.
        norm = optax.tree.norm(optax.tree.get(opt_state, "grad"))
        return params, opt_state, norm, step + 1

    norm = optax.tree.norm(jax.grad(loss)(params))
    carry = (params, tx.init(params), norm, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(goes_on, body, carry)[0]


def _first_lipschitz(grad: bilevel.HyperParams) -> types.Scalar:
    """Return an L with which the first step moves each hyperparameter by about 1."""
    norm = optax.tree.norm(grad)
    return jnp.where(norm > 1e-3, norm / jnp.sqrt(optax.tree.size(grad)), 1.0)
