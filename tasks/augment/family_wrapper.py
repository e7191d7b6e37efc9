"""A family made of another one: its members, changed."""

import optax

from veldt.tasks import base
from veldt.tasks.common import types


class FamilyWrapper(base.TaskFamily):
    """A family with the configurations and transform of another; subclasses change the members.

    Attributes:
      family: Wrapped family.
    """

    family: base.TaskFamily

    def sample(self, key: types.Key) -> types.TaskConfig:
        return self.family.sample(key)

    def task(self, cfg: types.TaskConfig) -> base.Task:
        return self.family.task(cfg)

    def wrap(self, tx: optax.GradientTransformation) -> optax.GradientTransformation:
        return self.family.wrap(tx)
