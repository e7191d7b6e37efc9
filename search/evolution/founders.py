"""The rules that a search starts from: the initial rule, and further founders of the config.

Hurdles and gains are measured against the initial rule. Founders only live in the first population,
taken in turn with the initial rule, and are trained like any child; one that fails a hurdle has no
descendants. A run directory stands for its whole hall of fame, each rule at the learning rate that
the finals chose: that is a restart from the best (Lion, arXiv 2302.06675, section 2.2), from
several searches at once if several runs are named.

"zoo" stands for all shipped rules that consist of what the search draws and fit its slots. No table
of learning rates for short proxy tasks exists, so each gets the rate at which its steps are about
as long as the initial rule's (`step_size.like`); rules that find their own step get 1. That is a
guess, so `rate_factors` lets each rule begin at several rates.

All of them are written into the store when a run begins, because rule files and runs may change or
go, and a run that is resumed or replayed must stay the same.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from veldt.search import rule_sources
from veldt.search.config.evolution_config import ZOO, FounderConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import SearchError
from veldt.search.evaluation.genotype import MAX_RATE, MIN_RATE, Genotype
from veldt.search.evolution.mutations import donors, step_size
from veldt.search.language.ops import INTERPRETED
from veldt.search.language.statements import COPY
from veldt.search.program import Program
from veldt.search.storage import hall_entries
from veldt.search.storage.store import Store
from veldt.tasks.common.disk import run_directory

META_KEY: Final = "founders"
"""The store's key of the founders."""


@final
@dataclass(frozen=True, slots=True)
class Founder:
    """A rule of the first population.

    Attributes:
      name: Name for people: "lion", "runs/a #12".
      genotype: Rule with as many state slots as the search has, unused ones added.
    """

    name: str
    genotype: Genotype


def load(config: SearchConfig) -> tuple[Founder, ...]:
    """Read the rules that a config names; the initial rule comes first.

    Raises:
      SearchError: A rule cannot be read or has no learning rate, or there are more rules than the
        first population has places for.
    """
    found = [
        Founder(config.initial_rule, _genotype(config, config.initial_rule, config.learning_rate))
    ]
    for one in config.founders:
        named = list(_zoo(config, found, one)) if one.rule == ZOO else _of(config, one)
        found += [_at(each, factor) for each in named for factor in one.rate_factors]
    places = config.population_size // config.islands
    if len(found) > places:
        raise SearchError(
            f"there are {len(found)} founders, the initial rule included, for {places} places in "
            "the first population (population_size / islands); name fewer"
        )
    return tuple(found)


def _at(founder: Founder, factor: float) -> Founder:
    """Return a founder at a multiple of its learning rate."""
    if factor == 1:
        return founder
    rate = min(max(factor * founder.genotype.learning_rate, MIN_RATE), MAX_RATE)
    name = f"{founder.name} at {factor:g} times the rate"
    return Founder(name, replace(founder.genotype, learning_rate=rate))


def dump(founders: tuple[Founder, ...]) -> str:
    """Return founders as the store's text."""
    plain = [
        {
            "name": one.name,
            "program": str(one.genotype.program),
            "learning_rate": one.genotype.learning_rate,
        }
        for one in founders
    ]
    return json.dumps(plain)


def read(meta: Mapping[str, str], config: SearchConfig) -> tuple[Founder, ...]:
    """Return the founders of a run by its store's texts; from the config if they are not there.

    Stores of earlier versions do not have them.
    """
    if META_KEY not in meta:
        return load(config)
    return tuple(
        Founder(one["name"], Genotype(Program.parse(one["program"]), float(one["learning_rate"])))
        for one in json.loads(meta[META_KEY])
    )


def _of(config: SearchConfig, one: FounderConfig) -> list[Founder]:
    """Return the founders that an entry of the config stands for."""
    directory = Path(one.rule)
    if one.rule in rule_sources.RULE_NAMES or run_directory.kind_of(directory) != "search":
        rate = one.learning_rate
        if rate is None and rule_sources.read_found(one.rule) is None:
            rate = config.learning_rate
        return [Founder(one.rule, _genotype(config, one.rule, rate))]
    with Store.open(directory, read_only=True) as store:
        entries = [entry for entry in hall_entries.read_entries(store) if entry.candidate >= 0]
    found = []
    for entry in entries:
        rate = entry.learning_rate if one.learning_rate is None else one.learning_rate
        if rate is not None:
            genotype = _padded(config, entry.program, rate)
            found.append(Founder(f"{one.rule} #{entry.candidate}", genotype))
    # A search that has not ended has its best so far, and no hall of fame.
    return found or [Founder(one.rule, _genotype(config, one.rule, one.learning_rate))]


def _zoo(
    config: SearchConfig, before: Sequence[Founder], entry: FounderConfig
) -> Iterator[Founder]:
    """Yield the shipped rules that a search can run, but for those that are founders already."""
    names = {one.name for one in before}
    for name, program in donors.rules_within(config.mutation).items():
        runs = all(s.op == COPY or s.op in INTERPRETED for s in program.statements)
        if name in names or not runs or len(program.slots) > config.num_slots:
            continue
        rate = entry.learning_rate
        if rate is None and name in rule_sources.AT_RATE_ONE:
            rate = 1.0
        elif rate is None:
            rate = step_size.like(before[0].genotype, program).learning_rate
        yield Founder(name, _padded(config, program, rate))


def _genotype(config: SearchConfig, rule: str, learning_rate: float | None) -> Genotype:
    """Return a rule at a learning rate; None is the one that a search found it with."""
    program = rule_sources.load_rule(rule)
    if learning_rate is None:
        found = rule_sources.read_found(rule)
        if found is None:
            raise SearchError(
                f"{rule} has no learning rate, which only rules that a search found have; set one"
            )
        learning_rate = found.learning_rate
    return _padded(config, program, learning_rate)


def _padded(config: SearchConfig, program: Program, learning_rate: float) -> Genotype:
    program = replace(program, name="rule", doc="")
    return Genotype(program.with_slots(config.num_slots), learning_rate)
