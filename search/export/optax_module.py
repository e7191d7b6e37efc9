"""Programs as stand-alone Optax modules.

`export_optax` writes the source of a module that imports only JAX and Optax, that follows Optax's
naming, and that computes what `Program.as_optax` computes, operation for operation: the guards of
the instruction set stay where they could matter. The readable part is the rule: live instructions
only, under the program's own names.

The text depends on nothing but the arguments. It passes `ruff check` and `ruff format --check` at a
line length of 100, whatever the program's names are, and nothing from outside (names, docstring,
provenance) reaches it unsanitised.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Final

from veldt.search.export import jax_dialect, jax_helpers, leaf_code, module_source
from veldt.search.export.leaf_code import LeafWriter
from veldt.search.export.source_text import (
    LINE_LENGTH,
    call_lines,
    camel_case,
    number_text,
    wrap,
)
from veldt.search.language import constant_axes, dataflow, roles
from veldt.search.language.dataflow import Input
from veldt.search.language.ops import OPS
from veldt.search.language.statements import LOSS, PROGRESS
from veldt.search.program import Program
from veldt.search.runtime import state_arrays
from veldt.tasks.inner_loop import model_parts

# Names that have a meaning in the exported module.
# fmt: off
_RESERVED: Final = module_source.RESERVED | frozenset((
    "Any", "NamedTuple", "count", "embedding_mask", "extra_args", "init_fn", "jax", "jnp",
    "keep_dtype", "keep_shardings", "last_mask", "leaf", "learning_rate", "num_steps", "optax",
    "outputs", "params", "pick", "product_sum", "re", "square_sum", "squared", "squares", "state",
    "state_dtype", "sum", "tx", "update_fn", "updates", "value",
))
# fmt: on


def export_optax(
    program: Program,
    *,
    learning_rate: float | None = None,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Write a program as the source of an Optax module.

    The module has `scale_by_<rule>(b1=...)` (the rule in descent direction), its state
    `ScaleBy<Rule>State`, and `<rule>(learning_rate, b1=...)`.

    Args:
      program: Rule, with the names of the functions and their arguments. A name that
        the module needs for something else, or that is very long, is changed.
      learning_rate: Default of `<rule>`'s argument; None for an argument without default.
      provenance: Lines of the docstring on the rule's origin, such as the run's id, seeds, fitness
        and configuration.

    Returns:
      The text of the module, ending with a newline.

    Raises:
      LoweringError: The program is not well formed.
    """
    return _Module(program, learning_rate, provenance or {}).text()


def function_name(program: Program) -> str:
    """Return the name of the function that an exported module has for users."""
    return module_source.rule_name(program, _RESERVED)


class _Module:
    """The parts of one exported module."""

    def __init__(
        self, program: Program, learning_rate: float | None, provenance: Mapping[str, str]
    ):
        self.program = program
        self.learning_rate = None if learning_rate is None else float(learning_rate)
        self.provenance = provenance
        self.flow, self.targets = dataflow.lower_with_targets(program)
        self.rule = function_name(program)
        self.state_class = f"ScaleBy{camel_case(self.rule)}State"
        # The trees that a leaf function's arguments come from, by the rule's names.
        self.trees = {"g": "updates", "w": "params", **{name: name for name in _MASKS}}
        reserved = {*_RESERVED, self.state_class, f"scale_by_{self.rule}"}
        chosen = module_source.choose_names(program, self.flow, self.targets, reserved)
        self.names, self.temporary = chosen.values, chosen.temporary
        self.constants = chosen.constants
        self.fields = list(chosen.slots.values())
        self.trees |= {slot: f"state.{name}" for slot, name in chosen.slots.items()}
        self.slots = constant_axes.slot_extents(self.flow)
        self.masks = {name: mask for name, mask in _MASKS.items() if name in self.flow.live_roles}
        self.reads_progress = PROGRESS in self.flow.live_of_run
        self.reads_loss = LOSS in self.flow.live_of_run

    def text(self) -> str:
        code = "\n\n\n".join([self.state(), self.scale_by(), self.factory()])
        helpers = module_source.used_helpers(jax_helpers.HELPERS, code)
        copied = [*self.masks.values(), *(f for f in _KEEPERS if f"{f.__name__}(" in code)]
        masks = [inspect.getsource(function).rstrip("\n") for function in copied]
        used = "\n".join([*masks, *helpers, code])
        modules = [f"import {name}\n" for name in ("math", "re") if re.search(rf"\b{name}\.", used)]
        carried = module_source.carried_program(self.program, self.learning_rate, self.provenance)
        imports = _IMPORTS
        if re.search(r"\bAny\b", used):
            imports = imports.replace("NamedTuple", "Any, NamedTuple")
        head = [self.docstring(), "".join(modules) + imports]
        parts = [*masks, *helpers, code, *carried]
        return "\n\n".join(head) + "\n\n\n" + "\n\n\n".join(parts) + "\n"

    def docstring(self) -> str:
        """Return the module's docstring: what it is, how to use it, the program, its origin."""
        kind = "a scalar or a schedule"
        rate = "learning_rate"
        if self.learning_rate is not None:
            kind += f"; {self.learning_rate!r} by default"
            rate = ""
        given = [rate] if rate else []
        if self.reads_progress:
            given.append("num_steps=1000")
        loss = ", value=loss" if self.reads_loss else ""
        lines = [
            f"The update rule {self.rule} as an Optax transform, written by veldt.",
            "",
            f"    tx = {self.rule}({', '.join(given)})",
            "    opt_state = tx.init(params)",
            f"    updates, opt_state = tx.update(grads, opt_state, params{loss})",
            "    params = optax.apply_updates(params, updates)",
            "",
            *wrap(f"The learning rate is {kind}. JAX and Optax are all that this file needs."),
        ]
        return module_source.docstring(lines, self.program, self.provenance)

    def state(self) -> str:
        fields = [f"    {name}: optax.Updates" for name in self.fields]
        lines = [
            f"class {self.state_class}(NamedTuple):",
            f'    """State of `scale_by_{self.rule}`."""',
            "",
            "    count: jax.Array  # shape=(), dtype=jnp.int32; steps taken",
            *fields,
        ]
        return "\n".join(lines)

    def scale_by(self) -> str:
        """Return the source of the transform itself."""
        reads_w = 0 in self.flow.live
        parameters = [f"{name}: float = {number_text(value)}" for name, value in self.constants]
        zeros = [
            f"{name}={self.zeros(slot)}"
            for name, slot in zip(self.fields, self.flow.live_slots, strict=True)
        ]
        count = "count=jnp.zeros([], jnp.int32)"
        if self.reads_progress:
            parameters = ["*", "num_steps: int", *parameters]
        if self.fields:
            parameters.append(_STATE_DTYPE)
        arguments = "updates, state, params=None"
        transform = "GradientTransformation"
        if self.reads_loss:
            arguments += ", *, value=None, **extra_args"
            transform = "GradientTransformationExtraArgs"
        lines = [
            *call_lines(f"def scale_by_{self.rule}", parameters, _RETURNS, ""),
            '    """Rescale gradients by the rule: its update, before the learning rate."""',
            "",
            "    def init_fn(params):",
            *([] if zeros else ["        del params"]),
            *call_lines(f"        return {self.state_class}", [count, *zeros], ")", " " * 8),
            "",
            f"    def update_fn({arguments}):",
        ]
        if self.reads_loss:
            lines += [
                "        del extra_args",
                "        if value is None:",
                '            raise ValueError("the rule reads the loss: update needs value=loss")',
            ]
        if reads_w:
            lines += [
                "        if params is None:",
                '            raise ValueError("the rule reads the parameters: update needs them")',
            ]
        else:
            lines.append("        del params")
        lines.append("        count = optax.safe_increment(state.count)")
        lines += self.leaf_functions()
        lines += [
            "",
            *self.returned(f"optax.{transform}(init_fn, update_fn)"),
        ]
        return "\n".join(lines)

    def returned(self, transform: str) -> list[str]:
        """Return the lines that give back the transform, with what keeps its state's arrays."""
        ops = [OPS[self.flow.node(index).op] for index in self.flow.live_nodes]
        over_axes = any(op.scope in ("matrix", "shape") for op in ops)
        kept = "keep_shardings({})" if over_axes else "{}"
        if not self.fields:
            return [f"    return _skip_untrainable({kept.format(transform)})"]
        return [
            f"    tx = {transform}",
            "    if state_dtype is not None:",
            "        tx = keep_dtype(tx, state_dtype)",
            f"    return _skip_untrainable({kept.format('tx')})",
        ]

    def zeros(self, slot: str) -> str:
        """Return the source of a slot's first value."""
        kind = self.flow.values[self.flow.input_index(slot)].kind
        extent = self.slots[slot]
        if kind != "tensor":
            shape = jax_dialect.FULL_SHAPES[kind]
            return f"jax.tree.map(lambda g: jnp.zeros({shape}, g.dtype), params)"
        if extent == constant_axes.FULL:
            return "optax.tree.zeros_like(params)"
        return f"_zeros(params, rows={extent.rows}, columns={extent.columns})"

    def leaf_functions(self) -> list[str]:
        """Return the per-tensor functions and their use, inside `update_fn`."""
        flow = self.flow
        lines = [f"        {name} = {mask.__name__}(updates)" for name, mask in self.masks.items()]
        sums: dict[tuple[int, int], str] = {}
        for pair in leaf_code.summed_products(flow):
            lines += self.summed(pair, sums)
        news = [flow.new_slots[flow.slots.index(slot)] for slot in flow.live_slots]
        writer = self.writer([flow.update, *news], sums)
        wanted = [constant_axes.FULL, *(self.slots[slot] for slot in flow.live_slots)]
        lines += self.function("leaf", writer, writer.results(wanted))
        if not news:
            lines += self.mapped("updates", "leaf", writer)
            return [*lines, f"        return updates, {self.state_class}(count=count)"]
        lines += [
            *self.mapped("outputs", "leaf", writer),
            "",
            "        def pick(index):",
            "            return jax.tree.map(lambda _, output: output[index], updates, outputs)",
            "",
        ]
        picks = [f"{name}=pick({i})" for i, name in enumerate(self.fields, 1)]
        lines += call_lines(
            f"        state = {self.state_class}", ["count=count", *picks], ")", " " * 8
        )
        return [*lines, "        return pick(0), state"]

    def summed(self, pair: tuple[int, int], sums: dict[tuple[int, int], str]) -> list[str]:
        """Return the lines that sum a product over all tensors, and add the sum's name."""
        left, right = pair
        is_square = left == right
        base = "square_sum" if is_square else "product_sum"
        number = sum(name.startswith(base) for name in sums.values())
        name = f"{base}{number + 1 if number else ''}"
        value = self.flow.values[left]
        if (
            is_square
            and isinstance(value, Input)
            and self.slots.get(value.name, constant_axes.FULL).full
        ):
            tree = self.trees[value.name]
            lines = [f"        {name} = sum(jnp.sum(x * x) for x in jax.tree.leaves({tree}))"]
        else:
            each, all_of = ("squares", "squared") if is_square else ("_products", "_multiplied")
            writer = self.writer([left] if is_square else [left, right], sums)
            results = writer.results([constant_axes.FULL] * (1 if is_square else 2))
            factors = [text if text.isidentifier() else f"({text})" for text in results]
            product = f"jnp.square({results[0]})" if is_square else " * ".join(factors)
            lines = [
                *self.function(each, writer, [f"jnp.sum({product})"]),
                *self.mapped(all_of, each, writer),
                f"        {name} = sum(jax.tree.leaves({all_of}))",
            ]
        sums[pair] = name
        return lines

    def writer(self, outputs: Sequence[int], sums: Mapping[tuple[int, int], str]) -> LeafWriter:
        return LeafWriter(
            jax_dialect.JAX, self.flow, self.names, self.temporary, sums, outputs, " " * 12
        )

    def arguments(self, writer: LeafWriter) -> list[str]:
        """Return the leaf function's arguments from trees, `g` first, for shape and dtype."""
        tensors = [name for name in ("w", *self.flow.slots) if name in writer.inputs]
        return ["g", *tensors, *(name for name in self.masks if name in writer.roles)]

    def mapped(self, target: str, function: str, writer: LeafWriter) -> list[str]:
        """Return the lines of `target = jax.tree.map(function, ...)`."""
        trees = [self.trees[name] for name in self.arguments(writer)]
        return call_lines(f"        {target} = jax.tree.map", [function, *trees], ")", " " * 8)

    def function(self, name: str, writer: LeafWriter, results: Sequence[str]) -> list[str]:
        """Return the source of a leaf function, with an empty line before and after."""
        names = {"w": "w", **{v: v for v in self.masks}}
        names |= {slot: self.names[self.flow.input_index(slot)] for slot in self.flow.live_slots}
        inputs = [names[arg] for arg in self.arguments(writer)[1:]]
        lines = ["", *call_lines(f"        def {name}", ["g", *inputs], "):", " " * 8)]
        lines += [f"            {name} = {jax_dialect.JAX.of_run[name]}" for name in writer.of_run]
        for role, text in jax_dialect.JAX.shape_roles.items():
            if role in writer.roles:
                lines.append(f"            {role} = {text}")
        lines += writer.lines
        whole = f"            return {', '.join(results)}"
        if len(whole) <= LINE_LENGTH:
            return [*lines, whole, ""]
        parts = [f"                {result}," for result in results]
        return [*lines, "            return (", *parts, "            )", ""]

    def factory(self) -> str:
        """Return the function that a user calls: the transform with the learning rate applied."""
        rate = self.learning_rate
        default = "" if rate is None else f" = {number_text(rate)}"
        parameters = [f"learning_rate: optax.ScalarOrSchedule{default}"]
        parameters += [f"{name}: float = {number_text(value)}" for name, value in self.constants]
        passed = [f"{name}={name}" for name, _ in self.constants]
        if self.fields:
            parameters.append(_STATE_DTYPE)
            passed.append("state_dtype=state_dtype")
        if self.reads_progress:
            parameters[1:1] = ["*", "num_steps: int"]
            passed.insert(0, "num_steps=num_steps")
        inner = call_lines(f"        scale_by_{self.rule}", passed, "),", " " * 8)
        lines = [
            *call_lines(f"def {self.rule}", parameters, _RETURNS, ""),
            '    """Build the optimizer: the rule, times the negative learning rate."""',
            "    tx = optax.chain(",
            *inner,
            "        optax.scale_by_learning_rate(learning_rate),",
            "    )",
            "    return _skip_untrainable(tx)",
        ]
        return "\n".join(lines)


# Roles that come from the parameters' names, by functions that are exported unchanged.
_MASKS: Final = {roles.LAST: model_parts.last_mask, roles.EMBEDDING: model_parts.embedding_mask}

# Functions that keep the state's arrays in dtype and place, exported unchanged.
_KEEPERS: Final = (state_arrays.keep_dtype, state_arrays.keep_shardings)
_STATE_DTYPE: Final = "state_dtype: jax.typing.DTypeLike | None = None"

_IMPORTS: Final = """\
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax"""


_RETURNS: Final = ") -> optax.GradientTransformationExtraArgs:"
