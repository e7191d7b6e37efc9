"""A process that makes children: it follows the search by what the driver sends, and answers.

It holds a copy of the search's proposer (`evolution.children`) and nothing else: no store, no
device, no random state. What the driver sends is read by a thread at once, so that neither waits
for the other's full pipe. The process ends when the driver's end of the pipe is closed, however the
driver ended; Ctrl-C in the terminal does not reach it.
"""

import collections
import contextlib
import pickle
import queue
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Final, NamedTuple, final

from veldt.search.evolution.children import Proposed, Proposer, Told

READY: Final = b"ready"
MOST_STRUCTURES: Final = 4096
PROTOCOL: Final = pickle.HIGHEST_PROTOCOL


class Begun(NamedTuple):
    """The first message of the driver.

    Attributes:
      proposer: Proposer of the search as it is now.
      number: Number of the helper.
    """

    proposer: Proposer
    number: int


class Recorded(NamedTuple):
    """A message of the driver: a proposal was recorded, and a child is wanted.

    Attributes:
      told: What was recorded.
      child: Number of the child's proposal.
      maker: Number of the helper that is to make the child; None for none.
    """

    told: Told
    child: int
    maker: int | None


@final
class Replica:
    """The proposer of a search as one helper knows it."""

    def __init__(self, proposer: Proposer):
        """Begin with what the search has recorded so far."""
        self._proposer = proposer
        # Structures met lately, in order: a cache of the driver knows most of those that come
        # again, so they need no probe. Where it does not, the driver probes.
        self._met: collections.OrderedDict[str, None] = collections.OrderedDict()

    def learn(self, told: Told) -> None:
        """Learn of the next proposal recorded."""
        self._proposer.learn(told)
        self._meet(told.member.individual.structure)

    def child(self, index: int) -> Proposed | None:
        """Return the child of a proposal with all that the driver needs; None for others' work."""
        proposed = self._proposer.mutation(index)
        if proposed is None:
            return None
        individual, lowered = proposed.individual, proposed.individual.lowered
        # What is read here is computed here, and travels with the individual.
        _ = lowered.text, lowered.num_statements, lowered.length
        if not self._meet(individual.structure):
            _, finite = individual.fingerprint()
            if finite and not lowered.ignores_gradient:
                _ = lowered.live_text
        if self._proposer.config.niche_size is not None:
            _ = lowered.niche
        return proposed

    def _meet(self, structure: str) -> bool:
        """Return whether a structure was met before, and remember it."""
        known = structure in self._met
        self._met[structure] = None
        self._met.move_to_end(structure)
        if len(self._met) > MOST_STRUCTURES:
            self._met.popitem(last=False)
        return known


def serve(connection: Connection) -> None:
    """Answer the driver until it closes its end."""
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(READY)
        replica: Replica | None = None
        number = -1
        for message in _messages(connection):
            match pickle.loads(message):  # noqa: S301, from the process that started this one
                case Begun(proposer, number):
                    replica = Replica(proposer)
                case Recorded(told, index, maker):
                    assert replica is not None
                    replica.learn(told)
                    if maker == number:
                        answer = (index, replica.child(index))
                        connection.send_bytes(pickle.dumps(answer, PROTOCOL))


def _messages(connection: Connection) -> Iterator[bytes]:
    """Yield what the driver sends; it is taken from the pipe as it comes."""
    received: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                received.put(connection.recv_bytes())
        received.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (message := received.get()) is not None:
        yield message


def main(descriptor: int) -> None:
    """Serve on an open socket of this process."""
    with Connection(descriptor) as connection:
        serve(connection)
