"""Whether a metagradient can be trusted: what comes with every one.

A metagradient may be exact and still useless: an outcome that jumps at every kink of a ReLU has a
right derivative almost everywhere that says nothing about any step one could take. So it is held
to central differences at two step sizes, along itself and, where more is asked for, along
directions half of which is itself and half random. If both agree with it, steps of that size are
predicted. If they agree with each other but not with it, it is wrong. If they do not agree with
each other, the outcome is rough.

Along a random direction alone the slope is smaller than along the gradient by the square root of
the number of meta-parameters, and the roughness is not: with hundreds of them nothing would pass
that descends well. A part of the gradient that is wrong is seen along the gradient all the same:
with a true part t and a wrong part e, the slope is off by (t e + |e|^2) / |t + e|^2.

Metasmoothness (Engstrom et al. 2025, arXiv 2503.13751, definition 2) comes from the same runs: how
far the trained parameters move the same way in two halves of a step, from -1 to 1. It is necessary
and not sufficient, so it cautions and does not decide.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.learned_opt.base import MetaParams
from veldt.meta.replay import programs
from veldt.meta.replay.task_training import Training
from veldt.tasks.common import types

STEP_SIZES: Final = (1e-2, 2.5e-3)
"""Of the differences, relative to the meta-parameters' root mean square."""

_TOLERANCE: Final = 0.25
"""How far off the differences a gradient may be. ReLU networks with a right one measured 5 to 12%:
the outcome bends at every kink that a step crosses, which no derivative knows of."""

_AGREEMENT: Final = 0.1
"""Within which differences of two step sizes are the same."""
_SMOOTH: Final = 0.9
"""Below this, of Adam on GPT-2, metagradients predict little (rank correlation 0.17 at 0.88)."""

_ROUNDING: Final = 16.0
"""By how many units in the last place an outcome may be off."""


@final
@dataclasses.dataclass(frozen=True)
class Trust:
    """Whether a metagradient can be trusted, and by which figures.

    Attributes:
      passed: Whether it is finite and agrees with the differences, where they were taken.
      finite: Whether all of it, and the outcome, is finite.
      step_sizes: Step sizes of the differences, relative; empty if none were taken.
      relative_errors: Relative errors of the gradient against the differences, at each step size;
        the largest of all directions. What rounding explains is taken off.
      disagreement: Relative difference between the differences of the two step sizes; None without
        differences.
      metasmoothness: S-hat at the larger step size, the least of all directions; None without
        differences.
      message: The conclusion in words, with what to change if the check failed.
    """

    passed: bool
    finite: bool
    step_sizes: tuple[float, ...]
    relative_errors: tuple[float, ...]
    disagreement: float | None
    metasmoothness: float | None
    message: str


@final
@dataclasses.dataclass(frozen=True)
class Differences:
    """Runs at both sides of a point, along random directions: numbers only, of a run or of several.

    Attributes:
      step_sizes: The larger and the smaller step size, relative.
      outcomes: Outcome above and below the point, by direction and step size, float64 [D, 2, 2].
      agreement: How far the parameters move the same way in both halves of the larger step, less
        how far they move otherwise, by direction, float64 [D].
      movement: How far the parameters move over both halves, by direction, float64 [D].
      eps: Unit in the last place of an outcome of 1.
    """

    step_sizes: tuple[float, float]
    outcomes: np.ndarray
    agreement: np.ndarray
    movement: np.ndarray
    eps: float


def examine(
    training: Training,
    meta_params: MetaParams,
    outcome: types.Scalar,
    meta_grad: MetaParams,
    key: types.Key,
    *,
    num_directions: int = 1,
    step_sizes: tuple[float, float] = STEP_SIZES,
) -> Trust:
    """Hold a metagradient to differences; takes 1 + 4 `num_directions` forward runs.

    Args:
      training: Training that the gradient is of.
      meta_params: Meta-parameters that it was taken at.
      outcome: Outcome of the run, float [].
      meta_grad: The gradient, shaped as the meta-parameters.
      key: Key of the directions after the first; it is consumed.
      num_directions: Number of directions; 0 to ask only whether the gradient is finite, and to run
        nothing.
      step_sizes: The larger and the smaller step size.
    """
    found = None
    if num_directions and _is_finite(outcome, meta_grad):
        found = differences(
            training,
            meta_params,
            meta_grad,
            key,
            num_directions=num_directions,
            step_sizes=step_sizes,
        )
    return judge(meta_params, outcome, meta_grad, key, found)


def differences(
    training: Training,
    meta_params: MetaParams,
    meta_grad: MetaParams,
    key: types.Key,
    *,
    num_directions: int = 1,
    step_sizes: tuple[float, float] = STEP_SIZES,
) -> Differences:
    """Run a training around a point; the arguments are those of `examine`."""
    spec = programs.spec_of(training, meta_params)
    outcome, centre = programs.run(spec, training, meta_params)
    outcomes = np.zeros((num_directions, len(step_sizes), 2))
    agreement, movement = np.zeros(num_directions), np.zeros(num_directions)
    for d, direction in enumerate(_directions(key, meta_params, meta_grad, num_directions)):
        for i, h in enumerate(step_sizes):
            ends = []
            for side, step in enumerate((h, -h)):
                moved = jax.tree.map(lambda x, v, s=step: x + s * v, meta_params, direction)
                outcomes[d, i, side], params = programs.run(spec, training, moved)
                ends.append(params)
            if i == 0:
                agreement[d], movement[d] = _agreement(ends[1], centre, ends[0])
    eps = float(jnp.finfo(outcome.dtype).eps)
    return Differences(step_sizes, outcomes, agreement, movement, eps)


def mean(parts: Sequence[Differences], shares: Sequence[float]) -> Differences:
    """Return the differences of a mean of runs from those of its parts.

    Args:
      parts: Differences of each part, with the same directions.
      shares: Share of each part in the mean; their sum is 1.
    """
    return Differences(
        parts[0].step_sizes,
        _sum([share * part.outcomes for share, part in zip(shares, parts, strict=True)]),
        _sum([part.agreement for part in parts]),
        _sum([part.movement for part in parts]),
        max(part.eps for part in parts),
    )


def judge(
    meta_params: MetaParams,
    outcome: types.Scalar | float,
    meta_grad: MetaParams,
    key: types.Key,
    found: Differences | None,
) -> Trust:
    """Hold a metagradient to differences that are there.

    Args:
      meta_params: Meta-parameters that the gradient was taken at.
      outcome: Outcome of the run, float [].
      meta_grad: The gradient, shaped as the meta-parameters.
      key: Key of the directions of the differences.
      found: The differences; None to ask only whether the gradient is finite.
    """
    if not _is_finite(outcome, meta_grad):
        return _not_finite(outcome)
    if found is None:
        return Trust(True, True, (), (), None, None, "finite; not checked further")
    length = _norm(_times(meta_grad, scales(meta_params)))  # Of the slope along the gradient.
    directions = _directions(key, meta_params, meta_grad, len(found.outcomes))
    rows = [
        _compare(found, d, _dot(meta_grad, direction), length)
        for d, direction in enumerate(directions)
    ]
    errors = tuple(max(row.errors[i] for row in rows) for i in range(2))
    disagreement = max(row.disagreement for row in rows)
    smoothness = float(np.min([row.smoothness for row in rows]))  # NaN where one is: not smooth.
    passed = max(errors) <= _TOLERANCE
    message = _explain(errors, disagreement, smoothness, found.step_sizes)
    return Trust(passed, True, found.step_sizes, errors, disagreement, smoothness, message)


def metasmoothness(first: types.Params, middle: types.Params, last: types.Params) -> float:
    """Return S-hat of parameters trained at z, z + h v and z + 2 h v (definition 2); 1 if alike."""
    return _smoothness(*_agreement(first, middle, last))


def scales(meta_params: MetaParams) -> MetaParams:
    """Return the root mean square of each leaf, and 1 for leaves of zeros."""

    def scale(leaf: jax.Array) -> jax.Array:
        rms = jnp.sqrt(jnp.mean(jnp.square(jnp.abs(leaf)))) if leaf.size else jnp.ones(())
        return jnp.where(rms > 0, rms, 1.0).astype(leaf.dtype)

    return jax.tree.map(scale, meta_params)


@final
@dataclasses.dataclass(frozen=True)
class _Row:
    """Figures of the differences along one direction."""

    errors: tuple[float, ...]
    disagreement: float
    smoothness: float


def _compare(found: Differences, direction: int, slope: float, length: float) -> _Row:
    """Compare the slope that a gradient has along a direction with the differences there."""
    slopes, noises = [], []
    for h, (above, below) in zip(found.step_sizes, found.outcomes[direction].tolist(), strict=True):
        slopes.append((above - below) / (2 * h))
        noises.append(_ROUNDING * found.eps * max(abs(above), abs(below)) / h)

    def relative(one: float, other: float, noise: float) -> float:
        size = max(abs(one), abs(other), 0.1 * length)
        if not math.isfinite(one - other):
            return math.inf
        return max(abs(one - other) - noise, 0.0) / size if size else 0.0

    errors = tuple(relative(slope, d, n) for d, n in zip(slopes, noises, strict=True))
    moved = float(found.agreement[direction]), float(found.movement[direction])
    return _Row(errors, relative(slopes[0], slopes[1], sum(noises)), _smoothness(*moved))


def _agreement(
    first: types.Params, middle: types.Params, last: types.Params
) -> tuple[float, float]:
    """Return how far parameters move the same way in two halves of a step, and how far they move.

    What moves one way and then the other counts against the first.
    """
    flat = [
        np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in _inexact(tree)])
        for tree in (first, middle, last)
    ]
    weights = np.abs(flat[2] - flat[0])
    same = np.sign(flat[1] - flat[0]) * np.sign(flat[2] - flat[1])
    return float(weights @ same), float(weights.sum())


def _smoothness(agreement: float, movement: float) -> float:
    return 1.0 if movement == 0 else agreement / movement


def _is_finite(outcome: types.Scalar | float, meta_grad: MetaParams) -> bool:
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((outcome, meta_grad)))


def _sum(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum, from the first to the last, so that it has the same bits each time."""
    return functools.reduce(np.add, arrays)


def _directions(
    key: types.Key, meta_params: MetaParams, meta_grad: MetaParams, count: int
) -> list[MetaParams]:
    """Return directions of length 1 where each leaf is measured in its own scale.

    The first is the gradient's, the others are halfway between it and random ones.
    """
    sizes = scales(meta_params)
    own = _unit(_times(meta_grad, sizes))
    found = [own] if count else []
    leaves, treedef = jax.tree.flatten(meta_params)
    for each in jax.random.split(key, count)[1:]:
        keys = jax.random.split(each, len(leaves))
        drawn = [
            jax.random.normal(k, leaf.shape, leaf.dtype)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        random = _unit(jax.tree.unflatten(treedef, drawn))
        found.append(_unit(jax.tree.map(jnp.add, own, random)))
    return [_times(direction, sizes) for direction in found]


def _unit(tree: Any) -> Any:
    """Return a tree of length 1, or zeros as they are."""
    norm = _norm(tree)
    return jax.tree.map(lambda leaf: leaf / norm if norm else leaf, tree)


def _not_finite(outcome: types.Scalar | float) -> Trust:
    if not np.isfinite(outcome):
        message = "the outcome is not finite: training diverged; lower the learning rate or clip"
    else:
        message = (
            "the metagradient is not finite though the outcome is. Either a function has no "
            "finite derivative where it was used (a root at 0: take scale_by_adam and "
            "clip_by_global_norm of veldt.meta.replay.transforms, or Adam with eps_root=1e-8), or "
            "training is chaotic "
            "(lower the learning rate, take fewer steps, or compute in float64)"
        )
    return Trust(False, False, (), (), None, None, message)


def _explain(
    errors: tuple[float, ...],
    disagreement: float,
    smoothness: float,
    step_sizes: tuple[float, float],
) -> str:
    found = " and ".join(
        f"{error:.1%} at {step:g}" for error, step in zip(errors, step_sizes, strict=True)
    )
    said = f"off the differences by {found}; metasmoothness {smoothness:.2f}"
    if max(errors) <= _TOLERANCE:
        caution = (
            "; low: keep steps small, average over seeds, or use smooth activations and eps_root"
        )
        return said + ("" if smoothness >= _SMOOTH else caution)
    # In a rough training both differences may happen to be off in the same way.
    if disagreement <= _AGREEMENT and smoothness >= _SMOOTH:
        return said + (
            ". The differences agree with each other, so the gradient is wrong: something on the "
            "way is not differentiated (a sign, a rounding, an argmax, stop_gradient; for Lion "
            "take scale_by_lion with a width)"
        )
    return said + (
        ". The differences do not agree with each other, or training is not smooth: the outcome is "
        "rough at this scale. "
        "Average over more seeds, use smooth activations (GELU, SiLU, tanh) in place of ReLU, give "
        "Adam eps_root=1e-8 to 1e-6, lower the learning rate, or shorten the run"
    )


def _inexact(tree: Any) -> list[Any]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return leaves or [jnp.zeros(0)]


def _times(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.multiply, a, b)


def _dot(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(
        sum(np.sum(np.asarray(x, np.float64) * np.asarray(y, np.float64)) for x, y in pairs)
    )


def _norm(tree: Any) -> float:
    return math.sqrt(_dot(tree, tree))


def _size(tree: Any) -> int:
    return max(sum(leaf.size for leaf in jax.tree.leaves(tree)), 1)
