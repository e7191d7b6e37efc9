"""Black-box search over the knots of a schedule: random search and CMA-ES, by ask and tell.

A candidate is K numbers, the natural logarithms of the learning rate at K evenly spaced knots;
`rates` interpolates them linearly, so a schedule's rates are geometric between knots. What a
candidate is worth is the caller's business, so training may happen anywhere:

    search = CmaEs(population_size=12)
    state = search.init(jnp.full(5, jnp.log(0.01)), key)
    candidates, state = search.ask(state, key_ask)                        # [N, K]
    losses = jax.vmap(lambda knots: train(rates(knots, num_steps)))(candidates)
    state = search.tell(state, candidates, losses, key_tell)
    state.best_knots, state.best_loss

Random search (Bergstra and Bengio 2012) draws all knots of a schedule around the start alike.
CMA-ES (Hansen 2016, arXiv 1604.00772) is evosax's. A loss that is not finite is never the best; to
CMA-ES it is the worst finite one of its generation, as in `black_box_estimator`, and a generation
without a finite loss teaches it nothing.
"""

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, final

import flax.struct
import jax
import jax.numpy as jnp

from veldt.meta import pytree
from veldt.meta.problems import inner_problem
from veldt.tasks.common import types

if TYPE_CHECKING:
    from evosax import algorithms

# Shapes: N candidates, K knots, T steps.


def rates(knots: jax.Array, num_steps: int) -> jax.Array:
    """Return the learning rate of each step, float [T].

    Args:
      knots: Logarithms of rates, float [K]; the first is of step 0, the last of step T - 1.
      num_steps: T.
    """
    where = jnp.linspace(0.0, num_steps - 1.0, knots.shape[0])
    return jnp.exp(jnp.interp(jnp.arange(num_steps), where, knots))


@flax.struct.dataclass
class BlackBoxState:
    """What a search remembers.

    Attributes:
      best_knots: The best candidate so far, float [K]; the start before the first.
      best_loss: Its loss, float []; infinite before the first.
      start: Where the search began, float [K].
      inner_state: The algorithm's own.
    """

    best_knots: jax.Array
    best_loss: types.Scalar
    start: jax.Array
    inner_state: Any


class BlackBox(pytree.Pytree, abc.ABC):
    """A search that sees losses alone. Subclasses are final frozen dataclasses."""

    @abc.abstractmethod
    def init(self, knots: jax.Array, key: types.Key) -> BlackBoxState:
        """Begin around knots [K]; the key is consumed."""

    @abc.abstractmethod
    def ask(self, state: BlackBoxState, key: types.Key) -> tuple[jax.Array, BlackBoxState]:
        """Draw candidates, float [N, K]; the key is consumed."""

    @abc.abstractmethod
    def tell(
        self, state: BlackBoxState, candidates: jax.Array, losses: jax.Array, key: types.Key
    ) -> BlackBoxState:
        """Return the state after candidates [N, K] had losses [N]; the key is consumed."""


@final
@dataclasses.dataclass(frozen=True)
class RandomSearch(BlackBox):
    """Independent draws: each knot uniform in `half_width` around the start.

    Attributes:
      num_candidates: N.
      half_width: Of the range of a knot, in nats; ln 10 is a factor of ten each way.
    """

    num_candidates: int = dataclasses.field(metadata=pytree.STATIC)
    half_width: float | jax.Array = 2.302585

    def init(self, knots: jax.Array, key: types.Key) -> BlackBoxState:
        del key
        return BlackBoxState(knots, jnp.full((), jnp.inf, knots.dtype), knots, ())

    def ask(self, state: BlackBoxState, key: types.Key) -> tuple[jax.Array, BlackBoxState]:
        shape = (self.num_candidates, *state.start.shape)
        offset = jax.random.uniform(key, shape, state.start.dtype, minval=-1.0, maxval=1.0)
        return state.start + self.half_width * offset, state

    def tell(
        self, state: BlackBoxState, candidates: jax.Array, losses: jax.Array, key: types.Key
    ) -> BlackBoxState:
        del key
        return _remember(state, candidates, losses)


@final
@dataclasses.dataclass(frozen=True)
class CmaEs(BlackBox):
    """CMA-ES.

    Attributes:
      population_size: N.
      init_std: The first standard deviation of a knot, in nats.
    """

    population_size: int = dataclasses.field(metadata=pytree.STATIC)
    init_std: float | jax.Array = 1.0

    def init(self, knots: jax.Array, key: types.Key) -> BlackBoxState:
        algorithm, params = self._algorithm(knots)
        inner_state = algorithm.init(key, knots, params)
        return BlackBoxState(knots, jnp.full((), jnp.inf, knots.dtype), knots, inner_state)

    def ask(self, state: BlackBoxState, key: types.Key) -> tuple[jax.Array, BlackBoxState]:
        algorithm, params = self._algorithm(state.start)
        candidates, inner_state = algorithm.ask(key, state.inner_state, params)
        return candidates, dataclasses.replace(state, inner_state=inner_state)

    def tell(
        self, state: BlackBoxState, candidates: jax.Array, losses: jax.Array, key: types.Key
    ) -> BlackBoxState:
        algorithm, params = self._algorithm(state.start)
        finite = jnp.isfinite(losses)
        worst = jnp.max(jnp.where(finite, losses, -jnp.inf))
        told, _ = algorithm.tell(
            key, candidates, jnp.where(finite, losses, worst), state.inner_state, params
        )
        learned = dataclasses.replace(
            state, inner_state=inner_problem.select(jnp.any(finite), told, state.inner_state)
        )
        return _remember(learned, candidates, losses)

    def mean(self, state: BlackBoxState) -> jax.Array:
        """Return the centre of the distribution, float [K]."""
        algorithm, _ = self._algorithm(state.start)
        return algorithm.get_mean(state.inner_state)

    def _algorithm(self, knots: jax.Array) -> tuple["algorithms.CMA_ES", Any]:
        # Not at the top: its import asks JAX for devices, before a driver can choose. It makes
        # arrays too, which must not become part of what is being traced.
        with jax.ensure_compile_time_eval():
            from evosax import algorithms

        # evosax's solution is for its shape alone; a fresh one knows nothing of an earlier search.
        algorithm = algorithms.CMA_ES(self.population_size, jnp.zeros(knots.shape))
        return algorithm, algorithm.default_params.replace(std_init=self.init_std)


def _remember(state: BlackBoxState, candidates: jax.Array, losses: jax.Array) -> BlackBoxState:
    """Keep the best of the candidates if it is better than the best so far."""
    losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
    index = jnp.argmin(losses)
    is_better = losses[index] < state.best_loss
    return dataclasses.replace(
        state,
        best_knots=jnp.where(is_better, candidates[index], state.best_knots),
        best_loss=jnp.where(is_better, losses[index], state.best_loss).astype(
            state.best_loss.dtype
        ),
    )
