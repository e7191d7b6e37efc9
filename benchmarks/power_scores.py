"""Scores for `search_power.py`: fresh seeds, unseen tasks, tuned baselines, a race of founders.

Runs of a search get their keys from the search's own seed. Those made here get them from `SEED`,
which no search has: no rule was selected on them. A run that fails has learnt nothing (0).
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from veldt.search import rule_sources
from veldt.search.config.finals_config import FinalsConfig, TuningConfig
from veldt.search.config.objectives import NOTHING_LEARNT
from veldt.search.config.proxy_config import EvaluatorConfig, ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.evaluator import Evaluator, EvaluatorFactory
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun
from veldt.search.finals import constant_tuning
from veldt.search.language.ops import INTERPRETED
from veldt.search.language.statements import COPY
from veldt.search.program import Program
from veldt.search.runtime.encode import Capacity

SEED: Final = 20_260_731
BASELINES: Final = ("adamw", "lion", "muon")
NUM_FRESH: Final = 32
# Of unseen tasks, and the learning rates tried there, relative to the rule's own.
NUM_CHOSEN_ON: Final = 4
NUM_UNSEEN: Final = 16
FACTORS: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
# Of the baselines.
NUM_TUNED_ON: Final = 8
TUNING: Final = TuningConfig(budget=121)
RATES: Final = FinalsConfig().rates
# Of the race of founders.
LEFT: Final = 8
RACED_RATES: Final = tuple(10 ** (-4 + power / 2) for power in range(8))


@final
class Trainer:
    """Trains rules on tasks and counts the steps."""

    def __init__(self, proxies: tuple[ProxyConfig, ...], objective: str, seed: int):
        self.num_steps = 0
        self._evaluator: Evaluator | None = None
        names = {op for name in fitting(len(INTERPRETED)) for op in _ops(name)}
        capacity = Capacity().with_ops(sorted(names))
        self._config = EvaluatorConfig(proxies, seed, capacity, objective)

    def train(self, rule: Genotype, proxies: Iterable[int], seeds: Iterable[int]) -> list[float]:
        """Return a rule's score on each seed, the mean over tasks; infinite where it failed."""
        if self._evaluator is None:
            self._evaluator = EvaluatorFactory(self._config)()
        scores = []
        for seed in seeds:
            job = EvalJob(rule, tuple(ProxyRun(proxy, seed) for proxy in proxies))
            outcome = self._evaluator(job)
            self.num_steps += sum(run.num_steps for run in outcome.runs)
            scores.append(math.inf if outcome.fitness is None else outcome.fitness)
        return scores

    def best_rate(
        self, program: Program, rates: Sequence[float], proxies: Iterable[int], seeds: Sequence[int]
    ) -> tuple[Genotype, float]:
        """Return a program at the best of some learning rates, and its mean score there."""
        tried = [Genotype(program, rate) for rate in rates]
        kept = tuple(proxies)
        scores = [float(np.mean(self.train(rule, kept, seeds))) for rule in tried]
        best = int(np.argmin(scores))
        return tried[best], scores[best]


@final
class Scorer:
    """Scores rules on what nothing was selected on; the same for all arms."""

    def __init__(self, config: SearchConfig, unseen: Sequence[ProxyConfig]):
        self._proxies = range(len(config.tasks))
        self._unseen = {task.task: len(config.tasks) + number for number, task in enumerate(unseen)}
        self._trainer = Trainer((*config.tasks, *unseen), config.objective, SEED)

    def fresh(self, rule: Genotype) -> list[float]:
        """Return a rule's scores on the proxies by fresh seed."""
        return _finite(self._trainer.train(rule, self._proxies, range(NUM_FRESH)))

    def unseen(self, rule: Genotype) -> dict[str, float]:
        """Return a rule's mean score on each unseen task, its rate chosen there on other seeds."""
        found = {}
        for name, proxy in self._unseen.items():
            rates = [rule.learning_rate * factor for factor in FACTORS]
            chosen_on = range(1000, 1000 + NUM_CHOSEN_ON)
            best, _ = self._trainer.best_rate(rule.program, rates, (proxy,), chosen_on)
            scores = self._trainer.train(best, (proxy,), range(NUM_UNSEEN))
            found[name] = float(np.mean(_finite(scores)))
        return found

    def tuned(self, name: str) -> dict[str, Any]:
        """Return a baseline with rate and constants tuned on the proxies, and its scores."""
        before = self._trainer.num_steps
        seeds = range(2000, 2000 + NUM_TUNED_ON)
        program = rule_sources.load_rule(name)
        start, _ = self._trainer.best_rate(program, RATES, self._proxies, seeds)

        def score(rules: Sequence[Genotype]) -> list[float]:
            return [float(np.mean(self._trainer.train(one, self._proxies, seeds))) for one in rules]

        found = constant_tuning.tune(start, score, TUNING, SEED)
        return {
            "rule": plain(found.genotype),
            "tuning_steps": self._trainer.num_steps - before,
            "tuning_score": found.score,
            "fresh": self.fresh(found.genotype),
            "unseen": self.unseen(found.genotype),
        }


@dataclass
class _Raced:
    """A shipped rule at one learning rate, and its scores so far."""

    name: str
    rule: Genotype
    scores: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores)) if self.scores else math.inf


def race(config: SearchConfig, max_steps: int) -> dict[str, Any]:
    """Return the best of the shipped rules that fit, by successive halving within a budget.

    Each rule starts at several learning rates. In every round all that are left get new seeds, as
    many as the round's share of the budget allows and at least one, and the better half stays. The
    best few rules are then treated as the finalists of a search are.
    """
    trainer = Trainer(config.tasks, config.objective, config.seed)
    tasks, seeds = range(len(config.tasks)), itertools.count()
    steps = sum(task.num_steps for task in config.tasks)
    left = []
    for name in fitting(config.num_slots):
        program = rule_sources.load_rule(name)
        rates = (0.1, 1.0) if name in rule_sources.AT_RATE_ONE else RACED_RATES
        left += [_Raced(name, Genotype(program, rate), []) for rate in rates]
    num_started = len(left)
    share = max_steps / math.ceil(1 + math.log2(num_started / LEFT))
    while trainer.num_steps < max_steps:
        number = max(1, int(share / (steps * len(left))))
        drawn = [next(seeds) for _ in range(number)]
        for one in left:
            one.scores += trainer.train(one.rule, tasks, drawn)
        left.sort(key=lambda one: one.mean)
        left = [one for one in left[: max(LEFT, len(left) // 2)] if math.isfinite(one.mean)]
    spent = trainer.num_steps
    finals = config.finals
    names = list(dict.fromkeys(one.name for one in left))[: finals.max_entries]
    select = range(1_000_000, 1_000_000 + finals.select_seeds)
    found = []
    for name in names:
        program = rule_sources.load_rule(name)
        best, score = trainer.best_rate(program, finals.rates, tasks, select)
        estimate = min(one.mean for one in left if one.name == name)
        found.append((score, name, best, estimate))
    score, name, winner, estimate = min(found, key=lambda row: row[0])
    return {
        "winner": plain(winner),
        "label": name,
        "estimate": estimate,
        "select": score,
        "steps": spent,
        "finals_steps": trainer.num_steps - spent,
        "trained": num_started,
        "proposed": num_started,
        "distinct": num_started,
    }


def fitting(num_slots: int) -> list[str]:
    """Return the shipped rules of so many state slots whose instructions can be interpreted."""
    found = []
    for name in rule_sources.RULE_NAMES:
        slots = rule_sources.load_rule(name).slots
        if len(slots) <= num_slots and set(_ops(name)) <= set(INTERPRETED):
            found.append(name)
    return found


def _ops(name: str) -> list[str]:
    return [s.op for s in rule_sources.load_rule(name).statements if s.op != COPY]


def _finite(scores: Iterable[float]) -> list[float]:
    return [score if math.isfinite(score) else NOTHING_LEARNT for score in scores]


def plain(rule: Genotype) -> dict[str, Any]:
    """Return a rule as plain data."""
    return {"program": str(rule.program), "learning_rate": rule.learning_rate}


def rule_of(row: dict[str, Any]) -> Genotype:
    """Return the rule of plain data."""
    return Genotype(Program.parse(row["program"]), row["learning_rate"])
