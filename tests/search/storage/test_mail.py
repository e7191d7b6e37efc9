"""Letters between drivers: one result in whatever order they travel, and nobody waits for ever."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veldt.search.storage import numbers
from veldt.search.storage.mail import Inbox, Letter, Mail
from veldt.search.storage.numbers import Numbers
from veldt.search.storage.store import Store


def letter(id, text):
    return Letter(id, 0, text, 0.1, None, 1)


@given(st.integers(1, 7), st.data())
def test_proposals_of_all_drivers_have_different_numbers(drivers, data):
    each = [Numbers(driver, drivers) for driver in range(drivers)]
    index = data.draw(st.integers(0, 1000))
    found = [one.of(index) for one in each]
    assert found == list(range(index * drivers, (index + 1) * drivers))
    assert [one.index(number) for one, number in zip(each, found, strict=True)] == [index] * drivers
    assert all(one.index(-3) == -3 for one in each)
    assert Numbers().of(index) == index


def test_the_letters_of_a_store_come_first(tmp_path):
    with Store.create(tmp_path) as store:
        mail = Mail(store, Numbers(0, 2), every=10)
        for num_told in range(1, 31):
            with store.transaction():
                mail.put(num_told, lambda number: letter(number, f"rule {number}"))
        sent = mail.take_unsent()
        assert [one.id for one in sent] == [1, 2, 3] and mail.take_unsent() == []
    with Store.open(tmp_path) as store:
        assert Mail(store, Numbers(0, 2), every=10).take_unsent() == sent


def test_a_search_of_one_driver_has_no_mail(tmp_path):
    with Store.create(tmp_path) as store:
        mail = Mail(store)
        for index in range(500):
            mail.put(index + 1, lambda number: pytest.fail("a letter"))
            assert not mail.awaits(index) and mail.immigrant(index) is None


class Driver:
    """A driver without an engine: a proposal is a text that holds all that it depends on."""

    def __init__(self, store, number, drivers, every, window, end):
        self.inbox = Inbox()
        self.mail = Mail(store, Numbers(number, drivers), every, self.inbox)
        self.every, self.window, self.end = every, window, end
        self.asked, self.num_told, self.outbox = [], 0, {}

    @property
    def has_ended(self):
        return self.num_told == self.end

    def step(self):
        """Ask or tell once, in the order of `OrderedDriver`; return whether it could."""
        index = len(self.asked)
        if index < self.end and index - self.num_told < self.window:
            if self.mail.awaits(index):
                return False
            came = self.mail.immigrant(index)
            known = self.asked[max(index - self.window, 0) - 1 :][:1] if index else []
            self.asked.append(hash((index, came and came.program, *known)))
            return True
        if self.has_ended:
            return False
        self.num_told += 1
        if self.num_told % self.every == 0:
            id = self.num_told // self.every
            # What is told counts, not what is asked.
            self.outbox[id] = letter(id, str(self.asked[self.num_told - 1]))
        return True


def run(stores, every, window, ends, draw):
    """Run drivers until all have ended; `draw(n)` picks what happens next."""
    drivers = [Driver(store, i, len(ends), every, window, end)
               for i, (store, end) in enumerate(zip(stores, ends, strict=True))]  # fmt: skip
    for _ in range(50_000):
        if all(driver.has_ended for driver in drivers):
            return [driver.asked for driver in drivers]
        number = draw(2 * len(drivers))
        driver = drivers[number % len(drivers)]
        by = drivers[numbers.sender(number % len(drivers), len(drivers))]
        if number < len(drivers):
            driver.step()
        else:
            # Some letters, in any order, some again; the end only with all of them.
            letters = list(by.outbox.values())
            some = letters[draw(len(letters) + 1) :][::-1]
            driver.inbox.add(letters if by.has_ended else some, ended=by.has_ended)
    raise AssertionError("all wait")


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 5), st.data())
def test_the_order_in_which_letters_travel_changes_nothing(drivers, window, more, data):
    every = window + more  # The least that a config may have, and above.
    ends = data.draw(st.lists(st.integers(0, 40), min_size=drivers, max_size=drivers))
    seed = data.draw(st.integers(1, 10_000))
    stores = [_NoStore()] * drivers
    once = run(stores, every, window, ends, random.Random(0).randrange)
    assert run(stores, every, window, ends, random.Random(seed).randrange) == once
    assert [len(asked) for asked in once] == ends


class _NoStore:
    def rows(self, query):
        return []
