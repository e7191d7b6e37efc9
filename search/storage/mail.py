"""The mail between the drivers of one search.

A search may have several drivers, each with a population and a store of its own. Each sends its
best rule to the next one, the last to the first, in *letters* numbered 1, 2, ...: letter `k` is put
when `k * every` proposals were recorded, in the transaction of the last of them, and the next
driver proposes the rule that it holds as its proposal `(k + 1) * every`. If the letter is not there
by then, that driver waits; if the sender ended before it would have put it, none comes and the
proposal is an ordinary child. So what a driver proposes depends on what others recorded, and not on
when. While `every` is at least the window, no two drivers wait for each other: who asks for
proposal `(k + 1) * every` has put letter `k` before.

A driver's letters are rows of its own store (the table `mail`), so they are as durable as what they
were made from, and a driver that is killed or resumed sends all of them again.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, final

from veldt.search.storage.numbers import Numbers, letter_of
from veldt.search.storage.store import Store


class Letter(NamedTuple):
    """A rule that a driver sends to the next one.

    Attributes:
      id: Number of the letter, from 1.
      proposal: Proposal of the rule, with the sender; -1 for the initial rule.
      program: Text of the program, dead statements included.
      learning_rate: Learning rate of the rule.
      mean: Mean log loss that the sender knew; None where there is none.
      num_samples: Number of samples in the mean.
    """

    id: int
    proposal: int
    program: str
    learning_rate: float
    mean: float | None
    num_samples: int


@final
class Inbox:
    """The letters that one driver gets, as they come, in whatever order and however often."""

    def __init__(self) -> None:
        self._letters: dict[int, Letter] = {}
        self._ended = False

    def add(self, letters: Iterable[Letter], *, ended: bool = False) -> None:
        """Add letters of the sender.

        Args:
          letters: Letters; those that are here already are the same.
          ended: Whether the sender has ended, and these and those before are all.
        """
        self._letters |= {letter.id: letter for letter in letters}
        self._ended = self._ended or ended

    def knows(self, number: int) -> bool:
        """Return whether a letter is here, or will never come."""
        return number in self._letters or self._ended

    def find(self, number: int) -> Letter | None:
        """Return a letter; None if it will never come."""
        return self._letters.get(number)


@final
class Mail:
    """The mail of one driver: what it gets and what it sends.

    Attributes:
      numbers: Numbers of the driver's proposals among those of all.
    """

    def __init__(
        self,
        store: Store,
        numbers: Numbers | None = None,
        every: int = 0,
        inbox: Inbox | None = None,
    ):
        """Set up the mail of a driver; without further arguments, of a search that has only one.

        Args:
          store: Store of the driver.
          numbers: Numbers of the driver's proposals among those of all.
          every: Number of proposals between two letters; 0 for no mail.
          inbox: Letters of the driver before this one.
        """
        self.numbers = Numbers() if numbers is None else numbers
        self._store = store
        self._every = every
        self._inbox = Inbox() if inbox is None else inbox
        self._unsent = list(read(store))

    def _number(self, index: int) -> int | None:
        """Return the number of the letter whose rule a proposal is, if it is one."""
        return letter_of(index, self._every)

    def awaits(self, index: int) -> bool:
        """Return whether a proposal needs a letter that has not come yet."""
        number = self._number(index)
        return number is not None and not self._inbox.knows(number)

    def immigrant(self, index: int) -> Letter | None:
        """Return the letter whose rule a proposal is; None for all other proposals."""
        number = self._number(index)
        return None if number is None else self._inbox.find(number)

    def put(self, num_told: int, write: Callable[[int], Letter]) -> None:
        """Put a letter if it is time to, inside the transaction of the last proposal.

        Args:
          num_told: Number of proposals recorded.
          write: Function that writes the letter with a number.
        """
        if self._every and num_told % self._every == 0:
            letter = write(num_told // self._every)
            self._store.insert("mail", **letter._asdict())
            self._unsent.append(letter)

    def take_unsent(self) -> list[Letter]:
        """Return the letters since the last call; at first all that the store has."""
        unsent, self._unsent = self._unsent, []
        return unsent


def read(store: Store) -> list[Letter]:
    """Return the letters of a driver's store, in order."""
    return [Letter(**row) for row in store.rows("SELECT * FROM mail ORDER BY id")]
