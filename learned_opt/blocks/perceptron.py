"""The small network that is applied to every parameter alone, without storing its layers.

A layer of 4 or 8 units over a million parameters is cheap to compute and dear to store, so such a
network is written out unit by unit: XLA then makes one loop over the parameters of all of it, in
which features and hidden units live in registers (and partitions that loop as the parameter is
sharded). A feature that varies along one dimension only is multiplied by its weights before it is
broadcast. Written out, 32 units take seconds to compile for every tensor; wide networks, and
tensors so small that compiling costs more than running, take matrix products instead, in blocks
that stay in the cache.

Shapes: F features, C constants, H hidden units, O outputs, N... the tensor's shape.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from veldt.learned_opt.blocks import features as features_lib
from veldt.learned_opt.blocks import tensors
from veldt.tasks.common import types

Weights: TypeAlias = dict[str, jax.Array]
"""`w0` [F + C, H], `b0` [H], `w1` [H, H], ..., the last of them [H, O] and [O]; float32."""

_WIDEST_UNROLLED = 8
_BLOCK_SIZE = 1 << 13


def init(key: types.Key, sizes: Sequence[int]) -> Weights:
    """Return weights from a normal of deviation 1 / sqrt(inputs), cut at two; biases of zero.

    Args:
      key: Consumed.
      sizes: Inputs, hidden sizes, outputs.
    """
    keys = jax.random.split(key, len(sizes) - 1)
    weights = {}
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        normal = jax.random.truncated_normal(keys[layer], -2.0, 2.0, (fan_in, fan_out), jnp.float32)
        weights[f"w{layer}"] = normal / math.sqrt(fan_in)
        weights[f"b{layer}"] = jnp.zeros((fan_out,), jnp.float32)
    return weights


def passing(weights: Weights, features: Mapping[int, float], gain: float = 1.0) -> Weights:
    """Return weights whose first output is a sum of features, and all other outputs 0.

    Two units of each hidden layer carry the positive and the negative part through; the others keep
    their weights up to the last layer, which does not listen to them yet. So meta-training starts
    from a known rule and has all other units at hand.

    Args:
      weights: Weights from `init`; at least two units in each hidden layer.
      features: The summands' weights by their row in the first layer.
      gain: What the sum is multiplied by.
    """
    last = len(weights) // 2 - 1
    passed = {name: array for name, array in weights.items() if name[0] == "b"}
    for layer in range(last + 1):
        w = weights[f"w{layer}"]
        if layer == last:
            passed[f"w{layer}"] = jnp.zeros_like(w).at[:2, 0].set(jnp.array([gain, -gain]))
            continue
        w = w.at[:, :2].set(0.0)
        for row, weight in features.items() if layer == 0 else ():
            w = w.at[row, :2].set(jnp.array([weight, -weight]))
        passed[f"w{layer}"] = w.at[:2, :2].set(jnp.eye(2)) if layer else w
    return passed


def apply(
    weights: Weights,
    features: Sequence[jax.Array] | features_lib.Features,
    shape: tuple[int, ...],
    *,
    constants: jax.Array | None = None,
    num_outputs: int,
) -> list[jax.Array]:
    """Apply the network to every parameter of a tensor.

    Args:
      weights: Weights from `init`. The first rows belong to `features`, the rows after them to
        `constants`; rows beyond both are not read.
      features: Arrays [D, ...] that broadcast to [D, N...], F features in all; or with scales.
      shape: N..., the tensor's.
      constants: Inputs that are the same for all parameters, [C].
      num_outputs: How many of the first outputs to return.

    Returns:
      The outputs, each [N...].
    """
    layers = [(weights[f"w{i}"], weights[f"b{i}"]) for i in range(len(weights) // 2)]
    layers[-1] = (layers[-1][0][:, :num_outputs], layers[-1][1][:num_outputs])
    first, bias = layers[0]
    scales = None
    if isinstance(features, features_lib.Features):
        if all(scale.size == scale.shape[0] for scale in features.scales):
            scales = jnp.concatenate([scale.reshape(-1) for scale in features.scales])
            features = features.blocks
        else:
            features = features.scaled()
    num_features = sum(block.shape[0] for block in features)
    if constants is not None:
        bias = bias + constants @ first[num_features : num_features + constants.shape[0]]
    first = first[:num_features]
    layers[0] = (first if scales is None else first * scales[:, None], bias)
    widest = max(b.shape[0] for _, b in layers[:-1])
    if widest > _WIDEST_UNROLLED:
        return _blocked(layers, [f for block in features for f in block], shape)
    if math.prod(shape) < tensors.SMALL:
        return _stacked(layers, features, shape)
    return _unrolled(layers, features, shape)


def _stacked(
    layers: Sequence[tuple[jax.Array, jax.Array]],
    features: Sequence[jax.Array],
    shape: tuple[int, ...],
) -> list[jax.Array]:
    """Compute the units of a layer as one array [H, N...]."""
    x = _layer(*layers[0], tuple(features))
    for weight, bias in layers[1:]:
        x = _layer(weight, bias, (jax.nn.relu(x),))
    return list(jnp.broadcast_to(x, (x.shape[0], *shape)))


@jax.custom_jvp
def _layer(weight: jax.Array, bias: jax.Array, inputs: tuple[jax.Array, ...]) -> jax.Array:
    """Return units [H, N...] of inputs [D, N...], added one by one."""
    ndim = inputs[0].ndim - 1
    rows = iter(weight)
    x = bias.reshape(-1, *(1,) * ndim)
    for block in inputs:
        for row in block:
            x = x + next(rows).reshape(-1, *(1,) * ndim) * row
    return x


@_layer.defjvp
def _layer_jvp(
    primals: tuple[jax.Array, jax.Array, tuple[jax.Array, ...]],
    tangents: tuple[jax.Array, jax.Array, tuple[jax.Array, ...]],
) -> tuple[jax.Array, jax.Array]:
    """Matrix products: the transpose of a chain of sums would be one pass for each weight."""
    weight, bias, inputs = primals
    out = _layer(weight, bias, inputs)
    weight_dot, bias_dot, inputs_dot = tangents
    out_dot = jnp.broadcast_to(bias_dot.reshape(-1, *(1,) * (out.ndim - 1)), out.shape)
    first = 0
    for block, block_dot in zip(inputs, inputs_dot, strict=True):
        rows = slice(first, first + block.shape[0])
        for matrix, array in ((weight_dot[rows], block), (weight[rows], block_dot)):
            out_dot = out_dot + jnp.einsum(
                "dh,d...->h...", matrix, array, precision=jax.lax.Precision.HIGHEST
            )
        first += block.shape[0]
    return out, out_dot


def _unrolled(
    layers: Sequence[tuple[jax.Array, jax.Array]],
    features: Sequence[jax.Array],
    shape: tuple[int, ...],
) -> list[jax.Array]:
    """Compute unit by unit: everything after the features is one loop."""
    weight, bias = layers[0]
    starts = itertools.accumulate((block.shape[0] for block in features), initial=0)
    rows = [weight[i : i + block.shape[0]] for i, block in zip(starts, features, strict=False)]
    units = [jnp.zeros((), bias.dtype) + b for b in bias]
    small: dict[tuple[int, ...], list[int]] = {}
    for i, block in enumerate(features):
        if block.shape[1:] != shape:
            small.setdefault(block.shape[1:], []).append(i)
    for members in small.values():
        part = jnp.tensordot(
            jnp.concatenate([rows[i] for i in members]).T,
            jnp.concatenate([features[i] for i in members]),
            1,
            precision=jax.lax.Precision.HIGHEST,
        )
        units = [unit + p[None] for unit, p in zip(units, part, strict=True)]
    for block, row in zip(features, rows, strict=True):
        if block.shape[1:] == shape:
            for d, w in enumerate(row):
                units = [unit + w[h] * block[d : d + 1] for h, unit in enumerate(units)]
    for weight, bias in layers[1:]:
        hidden = [jax.nn.relu(unit) for unit in units]
        units = [
            sum((weight[i, o] * h for i, h in enumerate(hidden)), start=bias[o])
            for o in range(bias.shape[0])
        ]
    return [jnp.broadcast_to(unit, (1, *shape)).reshape(shape) for unit in units]


def _blocked(
    layers: Sequence[tuple[jax.Array, jax.Array]],
    features: Sequence[jax.Array],
    shape: tuple[int, ...],
) -> list[jax.Array]:
    """As matrix products over blocks of parameters."""

    def network(columns: Sequence[jax.Array]) -> jax.Array:
        x = jnp.stack(columns, axis=-1)
        for i, (weight, bias) in enumerate(layers):
            x = jnp.dot(jax.nn.relu(x) if i else x, weight, precision=jax.lax.Precision.HIGHEST)
            x = x + bias
        return x

    columns = [jnp.broadcast_to(feature, shape).reshape(-1) for feature in features]
    if math.prod(shape) <= _BLOCK_SIZE:
        out = network(columns)
    else:
        out = jax.lax.map(network, columns, batch_size=_BLOCK_SIZE)
    return [out[:, o].reshape(shape) for o in range(out.shape[-1])]
