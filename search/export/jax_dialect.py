"""Programs in jax.numpy: the dialect of Optax exports.

Every form here, and the functions of `jax_helpers.py` that it calls, compute what the instruction's
`fn` in `ops.py` computes, guards and all; `tests/search/export/test_optax_module.py` compares the
two bit for bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.export.dialect import COMPARISONS, Code, Dialect, statement
from veldt.search.language.constant_axes import Extent
from veldt.search.language.types import Kind

_CALLS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "divide": ("_safe_divide", ("{0}", "{1}")),
    "power": ("jnp.power", ("jnp.abs({0})", "{1}")),
    "max": ("jnp.maximum", ("{0}", "{1}")),
    "min": ("jnp.minimum", ("{0}", "{1}")),
    "abs": ("jnp.abs", ("{0}",)),
    "sign": ("jnp.sign", ("{0}",)),
    "square": ("jnp.square", ("{0}",)),
    "cube": ("_cube", ("{0}",)),
    "sqrt": ("jnp.sqrt", ("jnp.abs({0})",)),
    "cbrt": ("jnp.cbrt", ("{0}",)),
    "reciprocal": ("_safe_divide", ("1.0", "{0}")),
    "exp": ("jnp.exp", ("{0}",)),
    "exp2": ("jnp.exp2", ("{0}",)),
    "exp10": ("jnp.exp", (f"{{0:2}} * {math.log(10.0)!r}",)),
    "expm1": ("jnp.expm1", ("{0}",)),
    "log": ("jnp.log", ("_floored({0})",)),
    "log2": ("jnp.log2", ("_floored({0})",)),
    "log10": ("jnp.log10", ("_floored({0})",)),
    "log1p": ("jnp.log1p", ("jnp.abs({0})",)),
    "sin": ("jnp.sin", ("{0}",)),
    "cos": ("jnp.cos", ("{0}",)),
    "tan": ("jnp.tan", ("{0}",)),
    "arcsin": ("jnp.arcsin", ("jnp.clip({0}, -1.0, 1.0)",)),
    "arccos": ("jnp.arccos", ("jnp.clip({0}, -1.0, 1.0)",)),
    "arctan": ("jnp.arctan", ("{0}",)),
    "sinh": ("jnp.sinh", ("{0}",)),
    "cosh": ("jnp.cosh", ("{0}",)),
    "tanh": ("jnp.tanh", ("{0}",)),
    "arcsinh": ("jnp.arcsinh", ("{0}",)),
    "arccosh": ("jnp.arccosh", ("jnp.maximum({0}, 1.0)",)),
    "arctanh": ("jnp.arctanh", ("jnp.clip({0}, -0.9999990463256836, 0.9999990463256836)",)),
    "invert": ("jnp.where", ("{0} > 0", "0.0", "1.0")),
    "where": ("jnp.where", ("{0} > 0", "{1}", "{2}")),
    "interp": ("_interp", ("{0}", "{1}", "{2}")),
    "norm": ("_norm", ("{0}",)),
    "mean": ("jnp.mean", ("{0}",)),
    "amax": ("jnp.max", ("{0}",)),
    "dot": ("jnp.sum", ("{0:2} * {1:3}",)),
    "cosine_sim": ("_cosine_similarity", ("{0}", "{1}")),
    "every": ("_every", ("{0}", "{1}")),
    "row_mean": ("_row_mean", ("{0}",)),
    "column_mean": ("_column_mean", ("{0}",)),
    "row_norm": ("_row_norm", ("{0}",)),
    "column_norm": ("_column_norm", ("{0}",)),
    "row_max": ("_row_max", ("{0}",)),
    "column_max": ("_column_max", ("{0}",)),
    "factored": ("_factored", ("{0}",)),
    "clip_by_quantile": ("_clip_by_quantile", ("{0}", "{1}")),
    "orthogonalize": ("_orthogonalize", ("{0}",)),
    "transpose": ("jnp.transpose", ("{0}",)),
    "matmul": ("_matmul", ("{0}", "{1}")),
    "global_cosine": ("_global_cosine", ("{0}", "{1}", "{2}")),
    "polar": ("_polar", ("{0}",)),
    "nuclear_norm": ("_nuclear_norm", ("{0}",)),
    "sinkhorn": ("_sinkhorn", ("{0}",)),
    "row_gram": ("_row_gram", ("{0}",)),
    "column_gram": ("_column_gram", ("{0}",)),
    "inverse_root": ("_inverse_root", ("{0}", "{1}", "{2}")),
    "eigenbasis": ("_eigenbasis", ("{0}", "{1}")),
    "sketch": ("_sketch", ("{0}", "{1}")),
    "unsketch": ("_unsketch", ("_as_matrix(g).shape", "{0}", "{1}")),
    "sketch_norm": ("_sketch_norm", ("_as_matrix(g).shape", "{0}")),
    "remember": ("_remember", ("{0}", "{1}")),
    "percentile": ("_percentile", ("{0}", "{1}")),
}

_SHAPE_ROLES: Final = {
    "ndim": "float(g.ndim)",
    "fan_in": "float(math.prod(g.shape[:-1]))",
    "fan_out": "float(g.shape[-1]) if g.ndim else 1.0",
}
# The full shape of a value of each kind that is no scalar.
FULL_SHAPES: Final[dict[Kind, str]] = {
    "tensor": "g.shape",
    "transposed": "_as_matrix(g).shape[::-1]",
    "row_pairs": "_pairs(g, of_rows=True)",
    "column_pairs": "_pairs(g, of_rows=False)",
    "sketch": "_sketch_shape(g)",
    "history": "(128,)",
}
_OF_RUN: Final = {
    "step": "count.astype(jnp.promote_types(g.dtype, jnp.float32))",
    "progress": "jnp.minimum(step / num_steps, 1.0)",
    "loss": "jnp.asarray(value).astype(jnp.promote_types(g.dtype, jnp.float32))",
}


@final
@dataclass(frozen=True, slots=True)
class _Jax(Dialect):
    """Source for jax.numpy."""

    def truth(self, comparison: str, kind: Kind, *, is_number: bool) -> Code:
        return Code.of_call("jnp.where", (comparison, "1.0", "0.0"))

    def scalar(self, code: Code, full: Kind) -> str:
        if full == "tensor":
            return f"jnp.full_like(g, {code})"
        return f"jnp.full({self.full_shapes[full]}, {code}, g.dtype)"

    def spread(self, code: Code, wanted: Extent) -> str:
        return f"_spread({code}, g, rows={wanted.rows}, columns={wanted.columns})"

    def choice(
        self, name: str, condition: str, new: tuple[Sequence[str], str], old: str, indent: str
    ) -> list[str]:
        body, result = new
        function = f"_fresh_{name}"
        call = Code.of_call("jax.lax.cond", (condition, function, f"lambda: {old}"))
        return [
            "",
            f"{indent}def {function}():",
            *body,
            f"{indent}    return {result}",
            "",
            *statement(indent, name, call),
        ]


JAX: Final = _Jax(
    calls=_CALLS,
    constants={"get_pi": "jnp.pi", "get_e": "jnp.e", "get_eps": "1e-08"},
    full_shapes=FULL_SHAPES,
    shape_roles=_SHAPE_ROLES,
    of_run=_OF_RUN,
    cast="astype",
    as_typed="jnp.asarray",
    broadcast="jnp.broadcast_to",
    retyping=frozenset((*COMPARISONS, "invert", "every")),
    scalars_widen=True,
    keeps_numbers=False,
)
