"""Actors that a test cuts off, heals and kills at will, in place of Ray's: no network."""

import contextlib
from concurrent.futures import Future

import ray

from veldt.tasks.pool import base, ray_cluster, ray_host, ray_pool


class Ref:
    def __init__(self):
        self._future = Future()

    def future(self):
        return self._future


class Method:
    def __init__(self, call):
        self.remote = call


class Actor:
    """An actor that answers at once, or once its link is back, or never."""

    def __init__(self, name):
        self.name = name
        self.is_cut = self.is_dead = False
        self._calls = []  # Those that have not been answered.
        self._worker = None

    def __getattr__(self, name):
        return Method(lambda *arguments: self._call(name, *arguments))

    def _call(self, name, *arguments):
        ref = Ref()
        self._calls.append((ref.future(), name, arguments))
        self._answer()
        return ref

    def _answer(self):
        if self.is_dead:
            for future, _, _ in self._calls:
                future.set_exception(ray.exceptions.ActorDiedError())
            self._calls.clear()
        elif not self.is_cut:
            calls, self._calls = self._calls, []
            for future, name, arguments in calls:
                if name == "last_words":
                    self._calls.append((future, name, arguments))
                else:
                    future.set_result(getattr(self, f"_{name}")(*arguments))

    def _where(self):
        return ray_host.Place("node", "host", 1)

    def _start(self, factory):
        self._worker = factory()
        return 0.0

    def _run(self, batch, jobs):
        run = [base.run_job(self._worker, job, timeout_s=None, name=self.name) for job in jobs]
        return ray_host.Ran(run)

    def _doing(self):
        return ray_host.Doing(None, 0.0)

    def _forget(self, batch):
        pass

    def cut(self):
        self.is_cut = True

    def heal(self):
        self.is_cut = False
        self._answer()

    def die(self):
        self.is_dead = True
        self._answer()

    def break_off(self):
        """Lose the connection, as by a reset: calls under way fail, and the worker lives on."""
        calls, self._calls = self._calls, []
        for future, name, arguments in calls:
            if name == "last_words":
                self._calls.append((future, name, arguments))
            else:
                future.set_exception(ray.exceptions.ActorUnavailableError("reset", None))


class World:
    """A cluster with room for everything, and its actors in the order in which they were made."""

    def __init__(self):
        self.actors = []
        self.local, self.session = False, ""

    def shape(self):
        return {"CPU": 1.0}

    def max_workers(self):
        return 8

    def has_node(self, node):
        return True

    def check_head(self):
        return ""

    head_is_away = False

    def close(self):
        pass

    def remote(self, name, conditions):
        self.actors.append(Actor(name))
        return self.actors[-1]

    @property
    def alive(self):
        return [actor for actor in self.actors if not actor.is_dead]


@contextlib.contextmanager
def in_force(patch):
    """Let pools of this process have actors of the world that is yielded."""
    world = World()

    def get(ref, timeout):
        if not ref.future().done():
            raise ray.exceptions.GetTimeoutError("no answer")
        return ref.future().result()

    patch.setattr(ray_cluster, "connect", lambda config: world)
    patch.setattr(ray_pool, "_actor_class", lambda shape: world)
    patch.setattr(ray, "put", lambda value: value)
    patch.setattr(ray, "get", get)
    patch.setattr(ray, "kill", lambda actor: actor.die())
    patch.setattr(ray_pool.ray_metrics.Metrics, "update", lambda metrics, stats: None)
    yield world
