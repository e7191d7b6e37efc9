"""Queries for what was proposed, against plain dictionaries."""

from hypothesis import given
from hypothesis import strategies as st

from veldt.search.evolution.proposal_cache import Seen
from veldt.search.storage.store import Store

NAMES = st.sampled_from("abcdef")


def add(store, candidate, behaviour):
    store.insert(
        "candidate", id=candidate, behaviour=behaviour, program="p", learning_rate=0.1, length=1,
        status="rejected" if candidate % 2 else "ok", fitness=None if candidate % 2 else -1.5,
        num_steps=1, message="",
    )  # fmt: skip


def tell(store, number, structure, candidate, behaviour):
    with store.transaction():
        if behaviour:
            add(store, candidate, behaviour)
        store.insert(
            "proposal", id=number, parent=None, mutation="m", program="p", learning_rate=0.1,
            structure=structure, statements=1, live=1, invalid=0, source="s", candidate=candidate,
            told_s=0.0,
        )  # fmt: skip


@given(st.lists(st.tuples(NAMES, NAMES), max_size=25), st.integers(1, 5), st.booleans())
def test_it_knows_what_dictionaries_know(tmp_path_factory, children, window, reopened):
    with Store.create(tmp_path_factory.mktemp("seen")) as store:
        with store.transaction():
            add(store, 0, "a")
        seen = Seen(store, "a")
        structures, behaviours, waiting = {"a": 0}, {"a": 0}, []
        for number, (structure, behaviour) in enumerate(children):
            if len(waiting) == window:
                first = waiting.pop(0)
                tell(store, *first)
                seen.tell(first[1], first[3])
            assert seen.num_pending == sum(bool(each[3]) for each in waiting)
            for name in "abcdef":
                assert seen.by_structure(name) == structures.get(name)
                assert seen.by_behaviour(name) == behaviours.get(name)
            candidate, new = structures.get(structure), ""
            if candidate is None:
                candidate = behaviours.get(behaviour)
            if candidate is None:
                candidate, new = len(behaviours), behaviour
                behaviours[behaviour] = candidate
            structures.setdefault(structure, candidate)
            seen.ask(structure, candidate, new)
            waiting.append((number, structure, candidate, new))
        for first in waiting:
            tell(store, *first)
            seen.tell(first[1], first[3])
        if reopened:
            seen = Seen(store, "a")
        assert seen.num_pending == 0
        assert {name: seen.by_structure(name) for name in structures} == structures
        assert {name: seen.by_behaviour(name) for name in behaviours} == behaviours
        assert [seen.fitness(c) for c in behaviours.values()] == [
            float("inf") if c % 2 else -1.5 for c in behaviours.values()
        ]
        # Memory holds nothing of what has been recorded.
        assert not seen._structures and not seen._behaviours
