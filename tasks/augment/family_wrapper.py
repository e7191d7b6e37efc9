"""A family made of another one: its members, changed."""

import optax

from veldt.tasks import base
from veldt.tasks.common import types


class FamilyWrapper(base.TaskFamily):
    """Another family's configurations and transform; subclasses say what becomes of a member.

    Attributes:
      family: The family as it was.
    """

    family: base.TaskFamily

    def sample(self, key: types.Key) -> types.TaskConfig:
        return self.family.sample(key)

    def task(self, cfg: types.TaskConfig) -> base.Task:
        return self.family.task(cfg)

    def wrap(self, tx: optax.GradientTransformation) -> optax.GradientTransformation:
        return self.family.wrap(tx)
