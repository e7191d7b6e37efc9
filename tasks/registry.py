"""The shipped tasks by name, and the import of a task of the user's own."""

import dataclasses
import math
from collections.abc import Callable
from typing import final

import jax

from veldt.tasks import base
from veldt.tasks.common import errors
from veldt.tasks.common.user_code import imports
from veldt.tasks.families import named
from veldt.tasks.shipped import (
    control,
    es_gradient,
    generative,
    images,
    language,
    optimizer_training,
    quadratic,
    tabular,
)
from veldt.tasks.shipped.unseen import arm, graphs, photographs, physics, sequences

KINDS: dict[str, tuple[Callable[[], base.Task], ...]] = {
    "quadratic": (
        quadratic.quadratic,
        quadratic.quadratic_stiff,
        quadratic.quadratic_noisy,
        quadratic.quadratic_large,
    ),
    "logistic": (tabular.breast_cancer_logistic, tabular.letters_logistic),
    "tabular perceptron": (
        tabular.breast_cancer_mlp,
        tabular.letters_mlp,
        tabular.letters_mlp_deep,
    ),
    "image perceptron": (
        images.digits_mlp,
        images.digits_mlp_deep,
        images.digits_mlp_wide,
        images.digits_mixer,
        images.fashion_mlp,
        images.fashion_mlp_wide,
    ),
    "convolution": (
        images.digits_conv,
        images.digits_conv_wide,
        images.fashion_conv,
        images.fashion_conv_wide,
    ),
    "residual convolution": (images.digits_resnet, images.fashion_resnet),
    "patch transformer": (images.digits_vit, images.fashion_vit),
    "autoencoder": (
        generative.digits_autoencoder,
        generative.digits_autoencoder_deep,
        generative.fashion_autoencoder,
    ),
    "variational autoencoder": (generative.digits_vae, generative.fashion_vae),
    "diffusion": (generative.digits_diffusion, generative.fashion_diffusion),
    "recurrent language model": (
        language.char_gru,
        language.prose_gru,
        language.prose_gru_wide,
        language.prose_lstm,
    ),
    "transformer language model": (
        language.char_transformer,
        language.prose_transformer,
        language.prose_transformer_deep,
        language.prose_transformer_wide,
    ),
    "control": (
        control.cartpole_policy,
        control.cartpole_policy_long,
        control.pendulum_pathwise,
    ),
    "estimated gradient": (es_gradient.digits_mlp_es, es_gradient.digits_conv_es),
    "learned optimizer": (
        optimizer_training.learned_optimizer,
        optimizer_training.learned_optimizer_long,
    ),
    "self-supervised photographs": (
        photographs.photo_distortion_resnet,
        photographs.photo_masked_transformer,
        photographs.photo_denoise_unet,
    ),
    "coordinate network": (photographs.photo_coordinates,),
    "neural operator": (physics.burgers_operator,),
    "physics-informed network": (physics.heat_pinn,),
    "regression": (arm.arm_regression, arm.arm_residual_deep),
    "matrix factorisation": (graphs.ratings_factorisation,),
    "graph network": (graphs.communities_graph,),
    "sequence algorithm": (sequences.sorting_transformer, sequences.adding_mgu),
}
"""The shipped tasks by kind, each under its function's name."""

TASKS: dict[str, Callable[[], base.Task]] = {
    factory.__name__: factory for factories in KINDS.values() for factory in factories
}

TASK_FAMILIES: dict[str, Callable[[], base.TaskFamily]] = {
    "quadratics": quadratic.Quadratics,
    "patterns_mlp": named.patterns_mlp,
    "patterns_conv": named.patterns_conv,
    "patterns_autoencoder": named.patterns_autoencoder,
    "patterns_vit": named.patterns_vit,
    "chains_transformer": named.chains_transformer,
    "chains_gru": named.chains_gru,
}


OBJECT = "object:"
"""Start of the name that a config has for a task that was given as an object (`task_objects`)."""


def load_task(name: str) -> base.Task:
    """Return a shipped task by its name, or the user's own by "module:factory".

    `factory` is a function without arguments, or a class, in `module`; modules in the current
    directory are found.

    Raises:
      UnknownTaskError: No shipped task has the name.
      MissingDataError: The task's data are not on this machine.
      TaskError: The module or factory is missing or fails, or what it returns is no proper task.
    """
    check_name(name)
    return _load_own(name) if ":" in name else TASKS[name]()


def check_name(name: str) -> None:
    """Check that a task has this name; nothing is built.

    Raises:
      UnknownNameError: No task has it.
      TaskError: The module of a user's own task cannot be imported, or the task was an object.
    """
    if ":" in name and name.startswith(OBJECT):
        own = name.removeprefix(OBJECT)
        raise errors.TaskError(
            f"task {own!r} was given to Python as an object, and a config has only its name: "
            "give the object again, in Python (the same call with resume=True), or name a task of "
            'your own "module:factory", which can be loaded anywhere'
        )
    if ":" in name:
        imports.load_object("task", name)
    elif name not in TASKS:
        raise errors.UnknownTaskError.of(name, TASKS)


@final
@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """A row of `list_tasks`.

    Attributes:
      name: Name that `load_task` takes.
      kind: Kind of the task, a key of `KINDS`.
      description: Description, one line.
      num_params: Number of parameters; None if the data are missing.
      batch_shape: Shape of the training batch's first array; None if the data are missing.
      missing: Reason why the task cannot be loaded here, and the cure; empty if it can be loaded.
    """

    name: str
    kind: str
    description: str
    num_params: int | None
    batch_shape: tuple[int, ...] | None
    missing: str


def list_tasks() -> list[TaskInfo]:
    """Return a row for every shipped task; only shapes are computed."""
    return [_describe(kind, factory) for kind, row in KINDS.items() for factory in row]


def _describe(kind: str, factory: Callable[[], base.Task]) -> TaskInfo:
    name = factory.__name__
    description = (factory.__doc__ or "").partition("\n")[0]
    try:
        task = factory()
    except errors.MissingDataError as error:
        return TaskInfo(name, kind, description, None, None, str(error))
    key = jax.random.key(0)
    params = jax.tree.leaves(jax.eval_shape(task.init, key))
    batch = jax.tree.leaves(jax.eval_shape(task.train_batch, key))
    num_params = sum(math.prod(leaf.shape) for leaf in params)
    return TaskInfo(name, kind, description, num_params, batch[0].shape, "")


def _load_own(name: str) -> base.Task:
    """Return the task of "module:factory", called and checked."""
    factory_name = name.partition(":")[2]
    factory = imports.load_object("task", name)
    task = imports.call("task", name, factory)
    try:
        with imports.no_exit():
            return base.check_task(task)
    except errors.TaskError as error:
        raise errors.TaskError(
            f"task {name!r}: {factory_name}() is no usable task: {error}"
        ) from error
