"""The hypergradient by implicit differentiation, with two ways to invert the Hessian.

Where ∇_w L_T(w, λ) = 0, the implicit function theorem gives

    d L_V / dλ = ∂_λ L_V - ∂_λ⟨∇_w L_T, q⟩,   H q = ∇_w L_V,   H = ∇²_w L_T.

`Neumann` is Lorraine, Vicol and Duvenaud 2019 (arXiv 1911.02590, algorithms 2 and 3):
q ≈ α Σ_{j=0..J} (I - αH)^j ∇_w L_V, which needs the eigenvalues of αH to lie in (0, 2). With J = 0
it is the T1-T2 of Luketina et al. 2016 (arXiv 1511.06727), which takes H for the identity.
`ConjugateGradient` is the solver of Pedregosa 2016 and needs H to be positive definite; a damping
makes it so. H is seen only through products with vectors, forward over reverse.

Departures: none in the formulas. Unlike the authors' code, α is the method's own number and not the
learning rate of the optimizer that trains w.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import TypeAlias, final

import flax.struct
import jax
import jax.numpy as jnp
import optax

from veldt.meta import pytree
from veldt.meta.hypergradient.bilevel import BilevelProblem, HyperParams
from veldt.tasks.common import types

Product: TypeAlias = Callable[[types.Params], types.Params]
"""u -> H u, pytrees shaped as the parameters."""


class InverseHessian(pytree.Pytree, abc.ABC):
    """A way to solve H q = v. Subclasses are final frozen dataclasses."""

    @abc.abstractmethod
    def solve(self, product: Product, vector: types.Params, guess: types.Params) -> types.Params:
        """Return q, about H⁻¹ v.

        Args:
          product: Product with the Hessian, u -> H u.
          vector: Right-hand side, v.
          guess: Where an iterative solver may begin.
        """


@final
@dataclasses.dataclass(frozen=True)
class Neumann(InverseHessian):
    """A truncated Neumann series.

    Attributes:
      step_size: Step size, α, below 2 over the largest eigenvalue of H.
      num_terms: Number of products with H, J; the error shrinks as (1 - α h)^J, with h the least
        eigenvalue of H.
    """

    step_size: float | jax.Array = 0.1
    num_terms: int = dataclasses.field(default=20, metadata=pytree.STATIC)

    def solve(self, product: Product, vector: types.Params, guess: types.Params) -> types.Params:
        del guess

        def body(
            _: jax.Array, carry: tuple[types.Params, types.Params]
        ) -> tuple[types.Params, types.Params]:
            term, total = carry
            term = optax.tree.add_scale(term, -self.step_size, product(term))
            return term, optax.tree.add(total, term)

        _, total = jax.lax.fori_loop(0, self.num_terms, body, (vector, vector))
        return optax.tree.scale(self.step_size, total)


@final
@dataclasses.dataclass(frozen=True)
class ConjugateGradient(InverseHessian):
    """Conjugate gradients on (H + damping I) q = v.

    Attributes:
      tolerance: Ends when the residual's norm is below this part of that of v.
      damping: Number that is added to the eigenvalues of H.
      max_steps: The largest number of products with H.
    """

    tolerance: float | jax.Array = 1e-5
    damping: float | jax.Array = 0.0
    max_steps: int = dataclasses.field(default=100, metadata=pytree.STATIC)

    def solve(self, product: Product, vector: types.Params, guess: types.Params) -> types.Params:
        def damped(u: types.Params) -> types.Params:
            return optax.tree.add_scale(product(u), self.damping, u)

        solution, _ = jax.scipy.sparse.linalg.cg(
            damped, vector, x0=guess, tol=self.tolerance, maxiter=self.max_steps
        )
        return solution


@flax.struct.dataclass
class Hypergradient:
    """A hypergradient and what it was made of.

    Attributes:
      valid_loss: Validation loss, L_V, float [].
      grad: d L_V / dλ, shaped as the hyperparameters.
      solution: Solution, q, shaped as the parameters: the guess for the next one.
    """

    valid_loss: types.Scalar
    grad: HyperParams
    solution: types.Params


def hypergradient(
    problem: BilevelProblem,
    inverse: InverseHessian,
    params: types.Params,
    hyper: HyperParams,
    guess: types.Params | None = None,
) -> Hypergradient:
    """Return the hypergradient at parameters that (nearly) minimize the training loss.

    Args:
      problem: The losses.
      inverse: How to invert the Hessian of the training loss.
      params: Parameters, w.
      hyper: Hyperparameters, λ.
      guess: Where an iterative solver begins; zero if None.
    """
    valid_loss, (grads, direct) = jax.value_and_grad(problem.valid_loss, argnums=(0, 1))(
        params, hyper
    )
    train_grad = jax.grad(problem.train_loss)
    _, product = jax.linearize(lambda w: train_grad(w, hyper), params)
    start = jax.tree.map(jnp.zeros_like, params) if guess is None else guess
    solution = inverse.solve(product, grads, start)
    indirect = jax.grad(lambda h: optax.tree.vdot(train_grad(params, h), solution))(hyper)
    return Hypergradient(
        valid_loss=valid_loss, grad=optax.tree.sub(direct, indirect), solution=solution
    )
