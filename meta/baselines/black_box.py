"""Black-box search by ask and tell: random search and CMA-ES over any meta-parameters.

A candidate is a pytree of floats shaped as the start. What a candidate is worth is the caller's
business, so training may happen anywhere:

    search = CmaEs(population_size=12)
    state = search.init(jnp.full(5, jnp.log(0.01)), key)    # a pytree of any shape
    candidates, state = search.ask(state, key_ask)          # leaves [N, ...]
    losses = jax.vmap(lambda knots: train(grids.from_knots(knots, num_steps)))(candidates)
    state = search.tell(state, candidates, losses, key_tell)
    state.best, state.best_loss

Random search (Bergstra and Bengio 2012) draws all numbers of a candidate around the start alike.
CMA-ES (Hansen 2016, arXiv 1604.00772) is evosax's, and is wrapped here only. A loss that is not
finite is never the best; for CMA-ES it counts as the worst finite loss of its generation, and a
generation without a finite loss changes nothing.
"""

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, final

import flax.struct
import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.problems import inner_problem
from veldt.tasks.common import types

if TYPE_CHECKING:
    from evosax import algorithms

# Shapes: N candidates of a generation.


@flax.struct.dataclass
class BlackBoxState:
    """The state of a search.

    Attributes:
      best: The best candidate so far; the start before the first generation.
      best_loss: Loss of the best candidate, float []; infinity before the first finite loss.
      start: Meta-parameters that the search began with.
      inner_state: State of the algorithm.
    """

    best: MetaParams
    best_loss: types.Scalar
    start: MetaParams
    inner_state: Any


class BlackBox(pytree.Pytree, abc.ABC):
    """A search that reads nothing but losses. Subclasses are final frozen dataclasses."""

    @abc.abstractmethod
    def init(self, meta_params: MetaParams, key: types.Key) -> BlackBoxState:
        """Begin around meta-parameters; the key is consumed."""

    @abc.abstractmethod
    def ask(self, state: BlackBoxState, key: types.Key) -> tuple[MetaParams, BlackBoxState]:
        """Draw candidates, leaves [N, ...]; the key is consumed."""

    @abc.abstractmethod
    def tell(
        self, state: BlackBoxState, candidates: MetaParams, losses: jax.Array, key: types.Key
    ) -> BlackBoxState:
        """Return the state after candidates had losses, float [N]; the key is consumed."""


@final
@dataclasses.dataclass(frozen=True)
class RandomSearch(BlackBox):
    """Independent draws: each number uniform in `half_width` around the start.

    Attributes:
      num_candidates: Number of candidates of a generation, N.
      half_width: Half of the range of a number; for logarithms of rates, ln 10 is a factor of ten
        each way.
    """

    num_candidates: int = dataclasses.field(metadata=pytree.STATIC)
    half_width: float | jax.Array = 2.302585

    def init(self, meta_params: MetaParams, key: types.Key) -> BlackBoxState:
        del key
        return _begin(meta_params, ())

    def ask(self, state: BlackBoxState, key: types.Key) -> tuple[MetaParams, BlackBoxState]:
        leaves, treedef = jax.tree.flatten(state.start)
        keys = [key] if len(leaves) == 1 else jax.random.split(key, len(leaves))
        drawn = []
        for leaf, leaf_key in zip(leaves, keys, strict=True):
            shape = (self.num_candidates, *leaf.shape)
            offset = jax.random.uniform(leaf_key, shape, leaf.dtype, minval=-1.0, maxval=1.0)
            drawn.append(leaf + self.half_width * offset)
        return jax.tree.unflatten(treedef, drawn), state

    def tell(
        self, state: BlackBoxState, candidates: MetaParams, losses: jax.Array, key: types.Key
    ) -> BlackBoxState:
        del key
        return _remember(state, candidates, losses)


@final
@dataclasses.dataclass(frozen=True)
class CmaEs(BlackBox):
    """CMA-ES over any pytree of floats, compiled.

    Attributes:
      population_size: Number of candidates of a generation, N.
      init_std: The first standard deviation of a number.
    """

    population_size: int = dataclasses.field(metadata=pytree.STATIC)
    init_std: float | jax.Array = 1.0

    @jax.jit
    def init(self, meta_params: MetaParams, key: types.Key) -> BlackBoxState:
        algorithm, params = self._algorithm(meta_params)
        return _begin(meta_params, algorithm.init(key, meta_params, params))

    @jax.jit
    def ask(self, state: BlackBoxState, key: types.Key) -> tuple[MetaParams, BlackBoxState]:
        algorithm, params = self._algorithm(state.start)
        candidates, inner_state = algorithm.ask(key, state.inner_state, params)
        return candidates, dataclasses.replace(state, inner_state=inner_state)

    @jax.jit
    def tell(
        self, state: BlackBoxState, candidates: MetaParams, losses: jax.Array, key: types.Key
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

    def mean(self, state: BlackBoxState) -> MetaParams:
        """Return the centre of the distribution, shaped as the start."""
        algorithm, _ = self._algorithm(state.start)
        return algorithm.get_mean(state.inner_state)

    def _algorithm(self, like: MetaParams) -> tuple["algorithms.CMA_ES", Any]:
        # Not at the top: its import asks JAX for devices, before a driver can choose. It makes
        # arrays too, which must not become part of what is being traced.
        with jax.ensure_compile_time_eval():
            from evosax import algorithms

        # evosax's solution is for its shape alone; a fresh one knows nothing of an earlier search.
        zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf)), like)
        algorithm = algorithms.CMA_ES(self.population_size, zeros)
        return algorithm, algorithm.default_params.replace(std_init=self.init_std)


def _begin(meta_params: MetaParams, inner_state: Any) -> BlackBoxState:
    meta_params = jax.tree.map(jnp.asarray, meta_params)
    dtype = jnp.result_type(*jax.tree.leaves(meta_params))
    return BlackBoxState(meta_params, jnp.full((), jnp.inf, dtype), meta_params, inner_state)


def _remember(state: BlackBoxState, candidates: MetaParams, losses: jax.Array) -> BlackBoxState:
    """Keep the best of the candidates if it is better than the best so far."""
    losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
    index = jnp.argmin(losses)
    is_better = losses[index] < state.best_loss
    return dataclasses.replace(
        state,
        best=jax.tree.map(
            lambda new, old: jnp.where(is_better, new[index], old), candidates, state.best
        ),
        best_loss=jnp.where(is_better, losses[index], state.best_loss).astype(
            state.best_loss.dtype
        ),
    )
