"""Programs in PyTorch: the dialect of exports as `torch.optim` optimizers.

As in the other dialect, all forms and the functions of `torch_helpers.py` compute what the
instruction's `fn` in `ops.py` computes. Two things differ from jax.numpy. Constants stay numbers of
Python, which PyTorch's functions do not take: `{0:t}` makes a tensor of such a number. And a tensor
without axes never makes one with axes wider, so that results need fewer casts: the optimizer copies
them into tensors of the right dtype.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.export.dialect import Code, Dialect, statement
from veldt.search.export.source_text import LINE_LENGTH
from veldt.search.language.constant_axes import Extent
from veldt.search.language.types import Kind


def _function(name: str, of: str = "{0:t}") -> tuple[str, tuple[str, ...]]:
    return f"torch.{name}", (of,)


_CALLS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "divide": ("_safe_divide", ("{0}", "{1:t}")),
    "power": ("torch.pow", ("torch.abs({0:t})", "{1}")),
    "max": ("torch.maximum", ("{0:t}", "{1:t}")),
    "min": ("torch.minimum", ("{0:t}", "{1:t}")),
    "abs": _function("abs"),
    "sign": ("_sign", ("{0:t}",)),
    "square": _function("square"),
    "cube": ("_cube", ("{0:t}",)),
    "sqrt": _function("sqrt", "torch.abs({0:t})"),
    "cbrt": ("_cbrt", ("{0:t}",)),
    "reciprocal": ("_safe_divide", ("1.0", "{0:t}")),
    "exp": _function("exp"),
    "exp2": _function("exp2"),
    "exp10": ("_exp10", ("{0:t}",)),
    "expm1": _function("expm1"),
    "log": _function("log", "_floored({0:t})"),
    "log2": _function("log2", "_floored({0:t})"),
    "log10": _function("log10", "_floored({0:t})"),
    "log1p": _function("log1p", "torch.abs({0:t})"),
    "sin": _function("sin"),
    "cos": _function("cos"),
    "tan": _function("tan"),
    "arcsin": _function("asin", "torch.clamp({0:t}, -1.0, 1.0)"),
    "arccos": _function("acos", "torch.clamp({0:t}, -1.0, 1.0)"),
    "arctan": _function("atan"),
    "sinh": _function("sinh"),
    "cosh": _function("cosh"),
    "tanh": _function("tanh"),
    "arcsinh": _function("asinh"),
    "arccosh": _function("acosh", "torch.clamp({0:t}, min=1.0)"),
    "arctanh": _function("atanh", "torch.clamp({0:t}, -0.9999990463256836, 0.9999990463256836)"),
    "invert": ("_invert", ("{0:t}",)),
    "where": ("torch.where", ("{0:t1} > 0", "{1}", "{2}")),
    "interp": ("_interp", ("{0}", "{1}", "{2}")),
    "norm": ("_norm", ("{0}",)),
    "mean": _function("mean", "{0}"),
    "amax": _function("amax", "{0}"),
    "dot": _function("sum", "{0:2} * {1:3}"),
    "cosine_sim": ("_cosine_similarity", ("{0}", "{1}")),
    "every": ("_every", ("{0:t}", "{1:t}")),
    "row_mean": ("_row_mean", ("{0}",)),
    "column_mean": ("_column_mean", ("{0}",)),
    "row_norm": ("_row_norm", ("{0}",)),
    "column_norm": ("_column_norm", ("{0}",)),
    "row_max": ("_row_max", ("{0}",)),
    "column_max": ("_column_max", ("{0}",)),
    "factored": ("_factored", ("{0}",)),
    "clip_by_quantile": ("_clip_by_quantile", ("{0}", "{1}")),
    "orthogonalize": ("_orthogonalize", ("{0}",)),
    "transpose": _function("t", "{0}"),
    "matmul": ("_matmul", ("{0}", "{1}")),
    "global_cosine": ("_global_cosine", ("{0}", "{1}", "{2}")),
    "polar": ("_polar", ("{0}",)),
    "nuclear_norm": ("_nuclear_norm", ("{0}",)),
    "sinkhorn": ("_sinkhorn", ("{0}",)),
    "row_gram": ("_row_gram", ("{0}",)),
    "column_gram": ("_column_gram", ("{0}",)),
    "inverse_root": ("_inverse_root", ("{0}", "{1}", "{2}")),
    "eigenbasis": ("_eigenbasis", ("{0}", "{1}")),
    "sketch": ("_sketch", ("{0}", "{1:t}")),
    "unsketch": ("_unsketch", ("_as_matrix(g).shape", "{0}", "{1:t}")),
    "sketch_norm": ("_sketch_norm", ("_as_matrix(g).shape", "{0}")),
    "remember": ("_remember", ("{0}", "{1:t}")),
    "percentile": ("_percentile", ("{0}", "{1:t}")),
}


@final
@dataclass(frozen=True, slots=True)
class _Torch(Dialect):
    """Source for PyTorch."""

    def truth(self, comparison: str, kind: Kind, *, is_number: bool) -> Code:
        if is_number:
            return Code.of_call("float", (comparison,))
        if kind == "scalar":
            return Code.of_call("_number", (comparison, "g"))
        return Code(f"({comparison}).to(g.dtype)")

    def scalar(self, code: Code, full: Kind) -> str:
        return f"{code:t}"

    def spread(self, code: Code, wanted: Extent) -> str:
        return f"{code:t}"

    def choice(
        self, name: str, condition: str, new: tuple[Sequence[str], str], old: str, indent: str
    ) -> list[str]:
        body, result = new
        inner = f"{indent}    "
        single = f"{indent}{name} = {result} if {condition} else {old}"
        if not body and len(single) <= LINE_LENGTH:
            return [single]
        return [
            f"{indent}if {condition}:",
            *body,
            *statement(inner, name, Code(result)),
            f"{indent}else:",
            *statement(inner, name, Code(old)),
        ]


TORCH: Final = _Torch(
    calls=_CALLS,
    constants={"get_pi": "math.pi", "get_e": "math.e", "get_eps": "1e-08"},
    full_shapes={
        "tensor": "g.shape",
        "transposed": "_as_matrix(g).shape[::-1]",
        "row_pairs": "_pairs(g, of_rows=True)",
        "column_pairs": "_pairs(g, of_rows=False)",
        "sketch": "_sketch_shape(g)",
        "history": "(128,)",
    },
    shape_roles={
        "ndim": "float(g.ndim)",
        "fan_in": "float(math.prod(g.shape[:-1]))",
        "fan_out": "float(g.shape[-1]) if g.ndim else 1.0",
    },
    of_run={
        "step": "_number(count, g)",
        "progress": "torch.clamp(step / num_steps, max=1.0)",
        "loss": "_number(loss, g)",
    },
    cast="to",
    as_typed="",
    broadcast="torch.broadcast_to",
    retyping=frozenset(("every",)),
    scalars_widen=False,
    keeps_numbers=True,
)
