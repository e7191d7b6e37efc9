"""Programs as stand-alone PyTorch modules.

`export_torch` writes the source of a module that imports only torch: a `torch.optim.Optimizer` with
the rule's constants as arguments, so that parameter groups, schedulers, checkpoints and closures
work as with torch's own. It computes what the Optax export computes: in float64 to rounding.

A rule that reads rows or columns means flax's axes, where the outputs are last. PyTorch's
`nn.Linear` and `nn.Conv2d` keep the outputs first. The optimizer of such a rule works on a view
with the outputs last, unless a group says `outputs_first=False`. Its module has
`param_groups(model)`, which says so for embeddings.

All that `optax_module.py` says of its text holds of this one too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, final

from veldt.search.export import module_source, torch_helpers
from veldt.search.export.dialect import Code, statement
from veldt.search.export.leaf_code import LeafWriter, summed_products
from veldt.search.export.source_text import (
    LINE_LENGTH,
    call_lines,
    camel_case,
    identifier,
    number_text,
    wrap,
)
from veldt.search.export.torch_dialect import TORCH
from veldt.search.language import constant_axes, dataflow
from veldt.search.language.dataflow import Constant, Node
from veldt.search.language.ops import OPS
from veldt.search.language.roles import EMBEDDING, LAST
from veldt.search.language.statements import LOSS, PROGRESS, STEP
from veldt.search.program import Program

# Names that have a meaning in the exported module.
# fmt: off
_RESERVED: Final = module_source.RESERVED | frozenset((
    "Optimizer", "None", "RuntimeError", "abs", "closure", "count", "dtype", "group", "leaves",
    "list", "lr", "name", "new", "num_steps", "outputs_first", "p", "param_group", "param_groups",
    "params", "product_sum", "self", "square_sum", "state", "state_dtype", "sum", "super", "torch",
    "update", "value", "zip",
))
# fmt: on
# Instructions on matrices and histories whose results do not depend on which axis is which.
_WITHOUT_AXES: Final = ("clip_by_quantile", "remember", "percentile")


def export_torch(
    program: Program,
    *,
    learning_rate: float | None = None,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Write a program as the source of a PyTorch module.

    The module has the class `<Rule>(params, lr, *, b1=...)`, an optimizer.

    Args:
      program: Rule, with the names of the class and its arguments. A name that the module needs for
        something else, or that is very long, is changed.
      learning_rate: Default of `lr`; None for an argument without default.
      provenance: Lines of the docstring on the rule's origin.

    Returns:
      The text of the module, ending with a newline.

    Raises:
      LoweringError: The program is not well formed.
    """
    return _Module(program, learning_rate, provenance or {}).text()


@final
class _Module:
    """The parts of one exported module."""

    def __init__(
        self, program: Program, learning_rate: float | None, provenance: Mapping[str, str]
    ):
        self.program = program
        self.learning_rate = None if learning_rate is None else float(learning_rate)
        self.provenance = provenance
        self.flow, targets = dataflow.lower_with_targets(program)
        rule = module_source.rule_name(program, _RESERVED)
        self.rule = identifier(camel_case(rule), len(rule) + 2, _RESERVED)
        self.names = module_source.choose_names(
            program, self.flow, targets, {*_RESERVED, self.rule}
        )
        self.reads_progress = PROGRESS in self.flow.live_of_run
        self.fields = list(self.names.slots.values())
        self.slots = constant_axes.slot_extents(self.flow)
        news = [self.flow.new_slots[self.flow.slots.index(slot)] for slot in self.flow.live_slots]
        self.counts = self.reads_progress or self.flow.input_index(STEP) in self.flow.live
        self.yielded = f"group, w, g{', state' if self.fields or self.counts else ''}"
        self.outputs = [self.flow.update, *news]
        self.reads_loss = LOSS in self.flow.live_of_run
        self.roles = [role for role in (LAST, EMBEDDING) if role in self.flow.live_roles]
        self.reads_axes = self._reads_axes()
        self.sums: dict[tuple[int, int], str] = {}

    def _reads_axes(self) -> bool:
        """Return whether the update depends on which axis is the outputs."""
        if {"fan_in", "fan_out"} & set(self.flow.live_roles):
            return True
        ops = {self.flow.node(index).op for index in self.flow.live_nodes}
        return any(OPS[op].scope in ("matrix", "shape") for op in ops.difference(_WITHOUT_AXES))

    def text(self) -> str:
        functions = self.functions()
        code = "\n\n\n".join([*functions, self.optimizer(), *self.groups()])
        helpers = module_source.used_helpers(torch_helpers.HELPERS, code)
        carried = module_source.carried_program(self.program, self.learning_rate, self.provenance)
        head = f"{self.docstring()}\n\nimport math\n\nimport torch"
        return "\n\n\n".join([head, *helpers, code, *carried]) + "\n"

    def docstring(self) -> str:
        """Return the module's docstring: what it is, how to use it, the program, its origin."""
        given = ["model.parameters()"]
        if self.reads_axes or self.roles:
            given = ["param_groups(model)"]
        kind = "The learning rate"
        if self.learning_rate is None:
            given.append("lr=1e-3")
        else:
            kind += f" is {self.learning_rate!r} by default, and"
        if self.reads_progress:
            given.append("num_steps=1000")
        lines = [
            f"The update rule {self.shown_name} for PyTorch, written by veldt.",
            "",
            f"    optimizer = {self.rule}({', '.join(given)})",
            "    loss.backward()",
            f"    optimizer.step({'lambda: loss' if self.reads_loss else ''})",
            "",
            *wrap(
                f"{kind} follows torch's own schedulers. All arguments may differ from group to "
                "group. PyTorch is all that this file needs."
            ),
        ]
        if self.reads_axes:
            lines += wrap(
                "The rule reads rows and columns: the last axis of a kernel is the outputs. "
                "Weights of nn.Linear and nn.Conv2d are turned so; those of a group with "
                "outputs_first=False are read as they are."
            )
        if self.roles:
            parts = {LAST: "the last layer's", EMBEDDING: "embeddings"}
            lines += wrap(
                f"The rule reads which weights are {' and '.join(parts[r] for r in self.roles)}: "
                f"their group has {' and '.join(f'{role}=True' for role in self.roles)}."
            )
        return module_source.docstring(lines, self.program, self.provenance)

    @property
    def shown_name(self) -> str:
        """The rule's name in text."""
        return module_source.rule_name(self.program, ())

    def functions(self) -> list[str]:
        """Return the functions of one tensor: parts of sums over all tensors, and the update."""
        found = []
        for pair in summed_products(self.flow):
            found.append(self.summed(pair))
        writer = self.writer(self.outputs)
        wanted = [constant_axes.FULL, *(self.slots[slot] for slot in self.flow.live_slots)]
        what = "update and the new state" if self.fields else "update"
        doc = f'"""Return the {what} of one tensor."""'
        found.append(self.function("_leaf_update", writer, doc, writer.results(wanted)))
        return found

    def summed(self, pair: tuple[int, int]) -> str:
        """Return a function of one tensor's part of a sum over all, and give the sum a name."""
        left, right = pair
        base = "square" if left == right else "product"
        number = 1 + sum(name.startswith(base) for name in self.sums.values())
        name = f"{base}_sum{number if number > 1 else ''}"
        writer = self.writer([left] if left == right else [left, right])
        codes = writer.results([constant_axes.FULL] * len(writer.outputs))
        factors = [code if code.isidentifier() else f"({code})" for code in codes]
        text = f"torch.square({codes[0]})" if left == right else " * ".join(factors)
        doc = f'"""Return one tensor\'s part of {name}."""'
        self.sums[pair] = name
        return self.function(_leaf_function(name), writer, doc, [f"torch.sum({text})"])

    def writer(self, outputs: Sequence[int]) -> LeafWriter:
        return LeafWriter(
            TORCH,
            self.flow,
            self.names.values,
            self.names.temporary,
            dict(self.sums),
            outputs,
            " " * 4,
        )

    def tensors(self, writer: LeafWriter) -> list[str]:
        """Return the program's names of the tensors that a function takes besides the gradient."""
        return [name for name in ("w", *self.flow.live_slots) if name in writer.inputs]

    def keywords(self, writer: LeafWriter) -> dict[str, str]:
        """Return the other arguments of a function, with their sources in the optimizer's step."""
        found: dict[str, str] = {}
        if STEP in writer.of_run:
            found["count"] = 'state["step"]'
        if PROGRESS in writer.of_run:
            found["num_steps"] = 'group["num_steps"]'
        if LOSS in writer.of_run:
            found["loss"] = "loss"
        for role in self.roles:
            if role in writer.roles:
                found[role] = f'float(group["{role}"] and w.ndim > 1)'
        for name in self.sums_of(writer):
            found[name] = f"{name}.to(w.device)"
        for index in writer.needed:
            value = self.flow.values[index]
            if isinstance(value, Constant) and value.name is not None:
                name = self.names.values[index]
                found[name] = f'group["{name}"]'
        return found

    def sums_of(self, writer: LeafWriter) -> list[str]:
        """Return the names of the sums over all tensors that a function reads."""
        found: dict[str, None] = {}
        for index in writer.needed:
            value = self.flow.values[index]
            if isinstance(value, Node):
                pairs = [(value.args[i], value.args[j]) for i, j in OPS[value.op].products]
                found |= dict.fromkeys(self.sums[pair] for pair in pairs)
        return list(found)

    def function(self, name: str, writer: LeafWriter, doc: str, results: Sequence[str]) -> str:
        """Return the source of a function of one tensor."""
        slots = [self.names.slots.get(tensor, tensor) for tensor in self.tensors(writer)]
        keywords = list(self.keywords(writer))
        args = ["g", *slots, *(["*", *keywords] if keywords else [])]
        lines = [*call_lines(f"def {name}", args, "):", ""), f"    {doc}"]
        lines += [f"    {value} = {TORCH.of_run[value]}" for value in writer.of_run]
        lines += [
            f"    {role} = {text}"
            for role, text in TORCH.shape_roles.items()
            if role in writer.roles
        ]
        lines += writer.lines
        whole = f"    return {', '.join(results)}"
        if len(whole) <= LINE_LENGTH:
            return "\n".join([*lines, whole])
        parts = [f"        {result}," for result in results]
        return "\n".join([*lines, "    return (", *parts, "    )"])

    def call(self, name: str, writer: LeafWriter, head: str, tail: str, indent: str) -> list[str]:
        """Return the lines that call a function of one tensor in the optimizer's step."""
        tensors = [self.source_of(tensor) for tensor in self.tensors(writer)]
        keywords = [f"{key}={text}" for key, text in self.keywords(writer).items()]
        return call_lines(f"{indent}{head}{name}", ["g", *tensors, *keywords], tail, indent)

    def source_of(self, tensor: str) -> str:
        """Return the source of a function's argument in the optimizer's step."""
        source = "w" if tensor == "w" else f'state["{self.names.slots[tensor]}"]'
        return f"{source}.to(g.dtype)" if self.fields else source

    def optimizer(self) -> str:
        """Return the source of the class."""
        lines = [
            f"class {self.rule}(torch.optim.Optimizer):",
            f'    """The update rule {self.shown_name}: w <- w - lr * update."""',
            "",
            *self.constructor(),
            "",
            *self.checks(),
            "",
            *self.step(),
            "",
            *self.leaves(),
        ]
        if self.fields:
            lines += ["", *torch_helpers.LOAD.splitlines()]
        return "\n".join(lines)

    def settings(self) -> dict[str, str]:
        """Return the constructor's keyword arguments besides `lr`, with types and defaults."""
        found = {"num_steps": "int"} if self.reads_progress else {}
        found |= {name: f"float = {number_text(value)}" for name, value in self.names.constants}
        found |= dict.fromkeys(self.roles, "bool = False")
        if self.reads_axes:
            found["outputs_first"] = "bool = True"
        if self.fields:
            found["state_dtype"] = "torch.dtype | None = None"
        return found

    def constructor(self) -> list[str]:
        rate = self.learning_rate
        settings = self.settings()
        args = ["self", "params", "lr: float" + ("" if rate is None else f" = {number_text(rate)}")]
        args += ["*"] * bool(settings) + [f"{name}: {kind}" for name, kind in settings.items()]
        pairs = [f'"{name}": {name}' for name in ("lr", *settings)]
        defaults = [f"        defaults = {{{', '.join(pairs)}}}"]
        if len(defaults[0]) > LINE_LENGTH:
            inner = [f"            {pair}," for pair in pairs]
            defaults = ["        defaults = {", *inner, "        }"]
        return [
            *call_lines("    def __init__", args, "):", "    "),
            *defaults,
            "        super().__init__(params, defaults)",
        ]

    def checks(self) -> list[str]:
        """Return the source of the method that checks a group's settings."""
        numbers = ["lr", *(name for name, value in self.names.constants if math.isfinite(value))]
        names = [f'"{name}"' for name in numbers]
        lines = [
            "    def add_param_group(self, param_group):",
            '        """Add a group of parameters, and check its settings."""',
            "        super().add_param_group(param_group)",
            "        group = self.param_groups[-1]",
            *call_lines("        for name in ", names, "):" if names[1:] else ",):", "        "),
            "            if not math.isfinite(group[name]):",
            '                raise ValueError(f"{name} must be finite, and is {group[name]!r}")',
            '        if group["lr"] < 0:',
            "            raise ValueError(f\"lr must be at least 0, not {group['lr']!r}\")",
        ]
        if self.reads_progress:
            lines += [
                '        if not group["num_steps"] >= 1:',
                '            raise ValueError("num_steps must be at least 1")',
            ]
        return lines

    def step(self) -> list[str]:
        """Return the source of the optimizer's step."""
        lines = torch_helpers.STEP.splitlines()
        if self.reads_loss:
            lines += [
                "        if loss is None:",
                '            raise ValueError("the rule reads the loss: give step(lambda: loss)")',
            ]
        lines.append("        leaves = list(self._leaves())")
        every = f"for {self.yielded} in leaves"
        for (left, right), name in self.sums.items():
            writer = self.writer([left] if left == right else [left, right])
            called = self.call(_leaf_function(name), writer, "", ")", " " * 16)
            line = f"        {name} = _total([{called[0].strip()} {every}])"
            if len(called) == 1 and len(line) <= LINE_LENGTH:
                lines.append(line)
                continue
            inner = [*called, f"                {every}"]
            line = f"            [{called[0].strip()} {every}]"
            if len(called) > 1 or len(line) > LINE_LENGTH:
                line = "\n".join(["            [", *inner, "            ]"])
            lines += [f"        {name} = _total(", line, "        )"]
        head = "update, *new = " if self.fields else "update = "
        lines += [
            f"        {every}:",
            *self.call("_leaf_update", self.writer(self.outputs), head, ")", " " * 12),
        ]
        if self.fields:
            names = [f'"{name}"' for name in self.fields]
            given = [f"({', '.join(names)}{',' * (len(names) == 1)})", "new", "strict=True"]
            zipped = call_lines("            for name, value in zip", given, "):", " " * 12)
            lines += [*zipped, "                state[name].copy_(value)"]
        return [
            *lines,
            '            w.add_(update, alpha=-group["lr"])',
            "        return loss",
        ]

    def leaves(self) -> list[str]:
        """Return the source of the method that finds what a step moves."""
        views = "_laid_out(p, group), _laid_out(p.grad, group)" if self.reads_axes else "p, p.grad"
        lines = [*torch_helpers.LEAVES.splitlines(), f"                w, g = {views}"]
        if not self.fields:
            return [*lines, *_COUNT * self.counts, f"                yield {self.yielded}"]
        return [
            *lines,
            '                dtype = group["state_dtype"] or p.dtype',
            _COUNT[0],
            "                if not state:",
            *(
                line
                for slot, name in self.names.slots.items()
                for line in statement(" " * 20, f'state["{name}"]', self.first(slot))
            ),
            _COUNT[-1],
            "                yield group, w, g.to(torch.promote_types(g.dtype, dtype)), state",
        ]

    def first(self, slot: str) -> Code:
        """Return the source of a slot before the first step."""
        kind = self.flow.values[self.flow.input_index(slot)].kind
        extent = self.slots[slot]
        if kind == "tensor" and extent == constant_axes.FULL:
            return Code("torch.zeros_like(g, dtype=dtype)")
        shape = TORCH.full_shapes[kind]
        if kind == "tensor":
            shape = f"_thin(g.shape, rows={extent.rows}, columns={extent.columns})"
        return Code.of_call("g.new_zeros", [shape, "dtype=dtype"])

    def groups(self) -> list[str]:
        """Return the function that makes groups; none for a rule that treats all alike."""
        if not self.reads_axes and not self.roles:
            return []
        embedding = ['"params": embeddings']
        embedding += ['"is_embedding": True'] * (EMBEDDING in self.roles)
        embedding += ['"outputs_first": False'] * self.reads_axes
        reads_last = LAST in self.roles
        chosen = [f"{{{', '.join(embedding)}}}"]
        chosen += ['{"params": last, "is_last": True}'] * reads_last
        source = torch_helpers.GROUPS.format(
            what="embeddings, the last linear layer" if reads_last else "embeddings",
            last=torch_helpers.LAST if reads_last else "",
            named="(*embeddings, *last)" if reads_last else "embeddings",
            groups="\n".join(f"        {group}," for group in (*chosen, '{"params": others}')),
        )
        return [source]


_COUNT: Final = [
    "                state = self.state[p]",
    '                state["step"] = state.get("step", 0) + 1',
]


def _leaf_function(sum_name: str) -> str:
    """Return the name of the function that makes one tensor's part of a sum."""
    return f"_leaf_{sum_name.replace('_sum', '')}"
