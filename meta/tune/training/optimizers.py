"""Optimizers whose hyperparameters are learned, by name, and rates of groups of parameters.

All arguments are numbers or schedules (`optax.inject_hyperparams` makes one of the other), traced.
These are Optax's own but for derivatives that are finite where Optax's are not (see
`veldt.meta.replay.transforms`).
"""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import optax

from veldt.meta import errors
from veldt.meta.replay import transforms
from veldt.meta.tune.training import parts
from veldt.meta.tune.training.hyperparameters import Value
from veldt.tasks.common import spelling, types
from veldt.tasks.common.user_code import imports

Number = Any  # A float, or a traced scalar.


def sgd(learning_rate: Number, momentum: Number = 0.9) -> optax.GradientTransformation:
    """`optax.sgd` with momentum."""
    return optax.chain(optax.trace(momentum), optax.scale_by_learning_rate(learning_rate))


def adam(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
) -> optax.GradientTransformation:
    """`optax.adam`."""
    scale = transforms.scale_by_adam(b1, b2, eps, eps_root)
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    weight_decay: Number = 1e-4,
) -> optax.GradientTransformation:
    """`optax.adamw`."""
    return optax.chain(
        transforms.scale_by_adam(b1, b2, eps, eps_root),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def lion(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.99,
    weight_decay: Number = 1e-3,
    width: Number = 1e-4,
) -> optax.GradientTransformation:
    """`optax.lion` with a smooth sign: tanh of the momentum over `width`."""
    return optax.chain(
        transforms.scale_by_lion(b1, b2, width=width),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


FACTORIES: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "lion": lion,
}
"""By name."""


def factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """Return an optimizer's factory by its name, or "module:factory".

    Raises:
      UnknownNameError: There is none.
    """
    if ":" in name:
        found: Callable[..., optax.GradientTransformation] = imports.load_object("optimizer", name)
        return found
    if name not in FACTORIES:
        hint = spelling.did_you_mean(name, FACTORIES)
        raise errors.UnknownNameError(
            f"there is no optimizer {name!r} to tune{hint}; there are {', '.join(FACTORIES)}, and "
            '"module:factory"'
        )
    return FACTORIES[name]


def of_run(name: str, num_steps: int, given: Collection[str]) -> dict[str, int]:
    """Return the arguments that an optimizer takes of the run: its length, unless it is given.

    Args:
      name: Name of the optimizer; see `factory`.
      num_steps: Length of the run.
      given: Names of the arguments that are given.
    """
    takes = "num_steps" in inspect.signature(factory(name)).parameters
    return {"num_steps": num_steps} if takes and "num_steps" not in given else {}


def check_arguments(name: str, given: Mapping[str, Any]) -> None:
    """See that an optimizer takes these arguments and needs no others.

    Raises:
      UnknownNameError: It takes no argument of a name that is given.
      MetaTrainError: It needs another.
    """
    parameters = inspect.signature(factory(name)).parameters
    known = [key for key, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
    takes_any = len(known) < len(parameters)
    for key in given:
        if key not in known and not takes_any:
            hint = spelling.did_you_mean(key, known)
            raise errors.UnknownNameError(
                f"{name} has no argument {key!r}{hint}; it has {', '.join(known)}"
            )
    for key, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and key not in given:
            raise errors.MetaTrainError(f"{name} needs {key}: name it in tune or in fixed")


def make(
    name: str,
    values: Mapping[str, Value | float],
    groups: Mapping[str, str],
    rates: Mapping[str, jax.Array],
    by_part: Mapping[str, Sequence[Value]] | None = None,
    model: parts.Parts | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer.

    Args:
      name: Name of the optimizer; see `factory`.
      values: Arguments of the optimizer: numbers, or schedules of the number of steps done.
      groups: Regular expressions by name of the group.
      rates: Number that multiplies the updates of each group, float [].
      by_part: Arguments that have a value for each part of the model; None for none.
      model: Parts of the model; None where no argument has a value for each.
    """

    def of(own: Mapping[str, Value | float]) -> optax.GradientTransformation:
        made: optax.GradientTransformation = optax.inject_hyperparams(factory(name))(
            **values, **own
        )
        return made

    tx = model.partition(by_part, of) if model is not None and by_part else of({})
    if rates:
        tx = optax.chain(tx, optax.stateless(_scaled(groups, rates)))
    return optax.with_extra_args_support(tx)


def _scaled(
    groups: Mapping[str, str], rates: Mapping[str, jax.Array]
) -> Callable[[types.Grads, types.Params | None], types.Grads]:
    def scale(updates: types.Grads, params: types.Params | None) -> types.Grads:
        del params

        def one(path: tuple[jax.tree_util.KeyEntry, ...], update: jax.Array) -> jax.Array:
            place = jax.tree_util.keystr(path, simple=True, separator="/")
            group = next((key for key, regex in groups.items() if re.search(regex, place)), "")
            return update * rates[group] if group in rates else update

        return jax.tree_util.tree_map_with_path(one, updates)

    return scale
