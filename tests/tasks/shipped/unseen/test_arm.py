"""The arm's hand against rotation matrices."""

import numpy as np
from scipy.spatial.transform import Rotation

from veldt.tasks.shipped.unseen import arm


def test_the_hand_is_where_rotation_matrices_put_it():
    angles = np.random.default_rng(0).uniform(-3, 3, size=(20, 8))
    for row, ours in zip(angles, arm.hand(angles), strict=True):
        turned, position = Rotation.identity(), np.zeros(3)
        for joint, angle in enumerate(row):
            turned = turned * Rotation.from_euler("zy"[joint % 2], angle)
            position += turned.apply([1 / 8, 0, 0])
        np.testing.assert_allclose(ours, position, atol=1e-12)


def test_a_straight_arm_has_length_one():
    np.testing.assert_allclose(arm.hand(np.zeros((1, 8))), [[1.0, 0.0, 0.0]])


def test_targets_are_centred_and_scaled_on_the_training_part():
    targets = np.asarray(arm.arm_residual_deep().splits["train"].targets, float)
    np.testing.assert_allclose(targets.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.square(targets).mean(), 1.0, rtol=1e-5)
