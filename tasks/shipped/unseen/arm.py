"""Tasks on a robot's arm: where its hand is, from the angles of its joints.

The arm has eight links of equal length, one in all, and eight joints that turn in turn about the
vertical axis and about a horizontal one that the links before them turn with them.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.data import dataset
from veldt.tasks.shipped import image_models, supervised

# Shapes: B batch, N poses, J joints, W width.

_NUM_JOINTS = 8
_LARGEST_ANGLE = 1.5  # Radians, to either side.


class PlainResidual(nn.Module):
    """Residual blocks of two dense layers without normalisation.

    A block's branch is scaled by one over the square root of the number of blocks, so that the size
    of the sum does not grow with depth (Hayou et al. 2021, arXiv 2010.12859).

    Attributes:
      width: Width W.
      num_blocks: Number of blocks.
      num_outputs: Number of outputs.
    """

    width: int
    num_blocks: int
    num_outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map inputs [B, J] to outputs [B, num_outputs]."""
        x = nn.Dense(self.width)(inputs)
        for _ in range(self.num_blocks):
            hidden = nn.Dense(self.width)(nn.relu(x))
            x = x + self.num_blocks**-0.5 * nn.Dense(self.width)(nn.relu(hidden))
        start = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        return nn.Dense(self.num_outputs, kernel_init=start)(nn.relu(x))


def arm_regression() -> supervised.SupervisedTask:
    """Find the hand of an eight-jointed arm with a perceptron of a million parameters, batch 32."""
    module = image_models.Mlp((512, 1024, 512, 3), nn.silu, output_variance=0.01)
    return _arm("arm_regression", module, batch_size=32)


def arm_residual_deep() -> supervised.SupervisedTask:
    """Find the hand of an eight-jointed arm with 24 residual blocks of width 48, batch 64."""
    module = PlainResidual(width=48, num_blocks=24, num_outputs=3)
    return _arm("arm_residual_deep", module, batch_size=64)


def hand(angles: np.ndarray) -> np.ndarray:
    """Return the hand's position [N, 3] for joint angles [N, J] in radians.

    From the hand inwards: a link along the first axis is added, then all is turned by the joint.
    Joints 0, 2, ... turn about the third axis, joints 1, 3, ... about the second.
    """
    num_joints = angles.shape[1]
    x, y, z = np.zeros((3, len(angles)))
    for joint in reversed(range(num_joints)):
        x = x + 1 / num_joints
        cosine, sine = np.cos(angles[:, joint]), np.sin(angles[:, joint])
        if joint % 2 == 0:
            x, y = cosine * x - sine * y, sine * x + cosine * y
        else:
            x, z = cosine * x + sine * z, cosine * z - sine * x
    return np.stack([x, y, z], axis=-1)


@functools.cache
def _poses() -> dataset.Splits:
    """Return angles and the hand's positions, float32, both of mean 0 and variance 1 or about 1."""
    share = np.random.RandomState(0).uniform(-1.0, 1.0, size=(16384, _NUM_JOINTS))
    positions = hand(_LARGEST_ANGLE * share)
    inputs = (np.sqrt(3) * share).astype(np.float32)
    splits = dataset.split_rows(dataset.Examples(inputs, positions))
    mean = splits["train"].targets.mean(axis=0)
    scale = (splits["train"].targets - mean).std()

    def scaled(part: dataset.Examples) -> dataset.Examples:
        return part._replace(targets=((part.targets - mean) / scale).astype(np.float32))

    return {split: scaled(part) for split, part in splits.items()}


def _arm(name: str, module: nn.Module, batch_size: int) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=supervised.squared_error,
        splits=supervised.on_device(_poses()),
        batch_size=batch_size,
        eval_size=512,
        reference_loss=jnp.ones((), jnp.float32),
    )
