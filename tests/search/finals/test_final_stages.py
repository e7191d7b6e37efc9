"""The finals: who takes part, that all are treated alike, and that nothing is run twice."""

import collections
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.search import fakes, older_stores
from veldt.search.config.finals_config import FinalsConfig, StageConfig, TuningConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.evolution import job_records
from veldt.search.finals import final_stages, shortlist
from veldt.search.program import Program
from veldt.search.storage import hall_entries
from veldt.search.storage.store import Store
from veldt.tasks.pool.base import JobResult, JobStatus

CONFIG = fakes.small_config(
    finals=FinalsConfig(
        baselines=("sgd", "lion"), lowest_rate=0.1, num_rates=3, select_seeds=2, final_seeds=4
    )
)
RULES = {  # candidate: (program, length, fitness)
    0: ("def rule(w, g):\n    a = sign(g)\n    b = a + w\n    return b\n", 2, -1.0),
    1: ("def rule(w, g):\n    a = exp(g)\n    return a\n", 1, -0.5),
    2: ("def rule(w, g):\n    a = sign(g)\n    return a\n", 1, -0.8),
    3: ("def rule(w, g):\n    a = sign(g)\n    b = a * g\n    c = b + w\n    return c\n", 3, -0.9),
    4: ("def rule(w, g):\n    a = sign(g)\n    b = a * w\n    c = b + g\n    d = c + w\n"
        "    return d\n", 4, -1.5),
    5: ("def rule(w, g):\n    a = exp(w)\n    return a\n", 1, None),
}  # fmt: skip


def add(store, candidate, program, length, fitness, status=None):
    store.insert(
        "candidate",
        id=candidate,
        behaviour=f"behaviour {candidate}",
        program=program,
        learning_rate=0.1,
        length=length,
        status=status or ("rejected" if fitness is None else "ok"),
        fitness=fitness,
        num_steps=10,
        message="",
    )


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path) as made:
        with made.transaction():
            for candidate, row in RULES.items():
                add(made, candidate, *row)
        yield made


class Trainer:
    """`run_now` with given losses, keeping the jobs. A loss of None is a divergence."""

    def __init__(self, loss):
        self.loss = loss
        self.jobs = []

    def __call__(self, payloads):
        for i, (job, label) in enumerate((run.payload, run.label) for run in payloads):
            assert label.startswith(f"{job.purpose}, ")
            assert isinstance(job, EvalJob) and not job.hurdle
            self.jobs.append(job)
            runs = []
            for run in job.runs:
                loss = self.loss(job.genotype, run)
                status = Status.DIVERGED if loss is None else Status.OK
                runs.append(RunResult(run, status, loss, () if loss is None else (loss,), 10, 0.0))
                if loss is None:
                    break
            failed = runs[-1].status is not Status.OK
            fitness = None if failed else float(np.mean([run.log_losses[-1] for run in runs]))
            outcome = Outcome(runs[-1].status, fitness, tuple(runs))
            yield JobResult(i, JobStatus.OK, outcome, "", 0.0, "test")


def hashed(genotype, run):
    """Losses that differ by rule, rate and seed, best at the middle rate."""
    rng = np.random.default_rng([len(str(genotype.program)), run.seed, run.proxy])
    return float(abs(np.log(genotype.learning_rate / 0.2)) - rng.random())


def play(store, trainer, *, config=CONFIG, incumbent=4):
    return final_stages.Finals(config, incumbent, store, trainer).run()


def kind_of(run):
    """Which seeds a run is on: what has selected, or what is shown."""
    return "final" if run.seed >= job_records.FINAL_SEEDS else "select"


# ----------------------------------------------------------------------------- who takes part


def finalists(store, config, incumbent):
    ranked = shortlist.ranked(store, config, incumbent)
    return shortlist.front(ranked, incumbent, config.finals.max_entries)


def test_one_best_rule_per_length_that_beats_every_shorter_one(store):
    # 2 is the best of length 1; 3 is longer and worse than 0; 5 has no fitness.
    assert finalists(store, CONFIG, 4) == [2, 0, 4]


def test_baselines_and_failures_are_never_finalists(store):
    with store.transaction():
        add(store, -1, RULES[1][0], 1, None, "baseline")
        add(store, 6, RULES[1][0], 1, None, "diverged")
    assert finalists(store, CONFIG, 4) == [2, 0, 4]


def test_the_incumbent_takes_part_even_off_the_front(store):
    assert finalists(store, CONFIG, 3) == [2, 0, 4, 3]


def test_the_fittest_are_kept_where_there_are_too_many(store):
    config = replace(CONFIG, finals=replace(CONFIG.finals, max_entries=2))
    assert finalists(store, config, 4) == [0, 4]
    # The incumbent takes the place of the worst.
    assert finalists(store, config, 3) == [4, 3]


def test_a_shortlist_is_scored_anew_and_luck_wears_off(store):
    """The search's favourite, 4, was lucky; 3, seventh by the search's account, is the best."""
    truth = {0: -0.7, 1: -0.5, 2: -0.75, 3: -1.4, 4: -0.3}
    by_text = {str(Program.parse(RULES[c][0])): value for c, value in truth.items()}

    def loss(genotype, run):
        return by_text.get(str(genotype.program), 0.0) + 0.01 * (run.seed % 3)

    config = replace(CONFIG, finals=replace(CONFIG.finals, shortlist=4))
    trainer = Trainer(loss)
    entries = play(store, trainer, config=config, incumbent=4)
    made = [job for job in trainer.jobs if job.purpose == "shortlist"]
    # Four by the search's own account; the better half, and the incumbent, on as many seeds again.
    assert {job.candidate for job in made} == {0, 2, 3, 4}
    seeds = collections.defaultdict(set)
    for job in made:
        seeds[job.candidate] |= {run.seed for run in job.runs}
        assert job.genotype.learning_rate == 0.1
    assert {c: len(own) for c, own in seeds.items()} == {0: 2, 2: 4, 3: 4, 4: 4}
    others = {run.seed for job in trainer.jobs if job.purpose != "shortlist" for run in job.runs}
    assert not others & set().union(*seeds.values())
    (winner,) = [entry for entry in entries if entry.winner]
    assert winner.candidate == 3
    # Again: nothing is trained anew.
    play(store, again := Trainer(loss), config=config, incumbent=4)
    assert not again.jobs


# ------------------------------------------------------------------------------ all alike


def test_all_get_the_same_rates_and_seeds(store):
    trainer = Trainer(hashed)
    entries = play(store, trainer)
    assert [entry.label for entry in entries] == ["#2", "adamw (initial)", "#4", "sgd", "lion"]
    tried = collections.defaultdict(list)
    shown = collections.Counter()
    for job in trainer.jobs:
        seeds = tuple((run.proxy, run.seed) for run in job.runs)
        if kind_of(job.runs[0]) == "select":
            tried[str(job.genotype.program)].append((job.genotype.learning_rate, seeds))
        else:
            shown[seeds] += 1
    assert len(tried) == 5
    budgets = {tuple(budget) for budget in tried.values()}
    (budget,) = budgets
    assert [rate for rate, _ in budget] == pytest.approx([0.1, 0.2, 0.4])
    assert len(budget[0][1]) == 2 * len(CONFIG.tasks)
    # Proxies on the final seeds, then meta-validation: once each for every entry.
    assert sorted(shown.values()) == [5, 5]


def test_finalists_may_have_as_many_rates_around_their_own(store):
    finals = replace(CONFIG.finals, rates_of_finalists="own")
    with store.transaction():
        store.execute("UPDATE candidate SET learning_rate = 1e-6 WHERE id = 2")
    trainer = Trainer(hashed)
    play(store, trainer, config=replace(CONFIG, finals=finals))
    tried = collections.defaultdict(list)
    for job in trainer.jobs:
        if kind_of(job.runs[0]) == "select":
            tried[job.candidate].append(job.genotype.learning_rate)
    expected = {
        2: [0.5e-6, 1e-6, 2e-6],
        0: [0.05, 0.1, 0.2],
        4: [0.05, 0.1, 0.2],
        -1: [0.1, 0.2, 0.4],
        -2: [0.1, 0.2, 0.4],
    }
    assert tried.keys() == expected.keys()
    for candidate, rates in expected.items():
        assert tried[candidate] == pytest.approx(rates), candidate
    for number in (1, 2, 5):
        assert 1e-6 in FinalsConfig(num_rates=number).rates_around(1e-6)


def test_the_rate_is_chosen_on_selection_seeds_and_shown_on_others(store):
    def loss(genotype, run):
        best = 0.4 if kind_of(run) == "select" else 0.1
        return -1.0 if genotype.learning_rate == pytest.approx(best) else 0.5

    for entry in play(store, Trainer(loss)):
        assert entry.learning_rate == pytest.approx(0.4)
        assert (entry.select, entry.final) == (-1.0, 0.5)


def test_the_winner_is_chosen_on_selection_seeds_not_on_those_shown(store):
    shortest = len(str(Program.parse(RULES[2][0])))

    def loss(genotype, run):
        short = len(str(genotype.program)) == shortest
        return -1.0 if short == (kind_of(run) == "select") else 0.0

    entries = play(store, Trainer(loss))
    winner = next(entry for entry in entries if entry.winner)
    assert winner.label == "#2" and winner.select == -1.0
    assert winner.final == 0.0 and min(entry.final for entry in entries) == -1.0
    assert sum(entry.winner for entry in entries) == 1


def test_a_baseline_never_wins_and_ties_go_to_the_shorter(store):
    entries = play(store, Trainer(lambda genotype, run: 0.0))
    assert [entry.label for entry in entries if entry.winner] == ["#2"]
    assert all(entry.candidate >= 0 for entry in entries if entry.winner)


def test_scores_are_means_over_runs_and_errors_are_over_seeds(store):
    for entry in play(store, Trainer(hashed)):
        rates = SimpleNamespace(program=entry.program, learning_rate=entry.learning_rate)
        seeds = [job_records.FINAL_SEEDS + s for s in range(4)]
        losses = [
            [hashed(rates, SimpleNamespace(seed=seed, proxy=proxy)) for proxy in (0, 1)]
            for seed in seeds
        ]
        means = np.mean(losses, axis=1)
        assert entry.final == pytest.approx(np.mean(losses))
        assert entry.final_error == pytest.approx(np.std(means, ddof=1) / 2)


# ------------------------------------------------------------------------------ failures


def test_a_failed_run_leaves_no_score(store):
    def loss(genotype, run):
        last_final = run.seed == job_records.FINAL_SEEDS + 3
        return None if last_final and run.proxy == 1 else -1.0

    for entry in play(store, Trainer(loss)):
        assert entry.select == -1.0
        assert entry.final is None and entry.final_error is None
        assert entry.meta == -1.0


def test_a_rate_that_fails_once_is_not_chosen(store):
    def loss(genotype, run):
        if genotype.learning_rate < 0.15:
            return None if run.seed == job_records.SELECT_SEEDS + 1 else -9.0
        return -1.0

    assert all(entry.learning_rate > 0.15 for entry in play(store, Trainer(loss)))


def test_where_everything_fails_there_is_no_winner(store):
    entries = play(store, Trainer(lambda genotype, run: None))
    assert not any(entry.winner for entry in entries)
    assert {(e.learning_rate, e.select, e.final, e.meta) for e in entries} == {(None,) * 4}


# ------------------------------------------------------------------------------ interruptions


def test_finals_played_again_run_nothing(store):
    trainer = Trainer(hashed)
    first = play(store, trainer)
    count = len(trainer.jobs)
    assert play(store, trainer) == first
    assert len(trainer.jobs) == count


class Killed(Exception):
    pass


@pytest.mark.parametrize("lifetime", [0, 1, 14, 15, 20, 24, 25])
def test_finals_that_were_cut_short_go_on_where_they_stopped(store, tmp_path_factory, lifetime):
    with Store.create(tmp_path_factory.mktemp("other")) as other:
        with other.transaction():
            for candidate, row in RULES.items():
                add(other, candidate, *row)
        whole = Trainer(hashed)
        expected = play(other, whole)
    trainer = Trainer(hashed)

    def dies(runs):
        for result in trainer(runs):
            if len(trainer.jobs) > lifetime:
                trainer.jobs.pop()  # It was killed before this one's end.
                raise Killed
            yield result

    # The learning rates (15 jobs), the final seeds (10).
    if lifetime < 25:
        with pytest.raises(Killed):
            play(store, dies)
    else:
        play(store, dies)
    assert play(store, trainer) == expected
    assert len(trainer.jobs) == len(whole.jobs) == 25
    assert store.rows("SELECT id, told FROM finals") == [{"id": 1, "told": 0}]


@pytest.mark.parametrize("status", [JobStatus.ERROR, JobStatus.TIMEOUT, JobStatus.KILLED])
def test_a_job_without_a_result_is_a_failure_that_is_not_tried_again(store, status):
    trainer = Trainer(hashed)

    def sometimes(runs):
        for run, result in zip(runs, trainer(runs), strict=True):
            if run.payload.candidate == 2 and run.payload.genotype.learning_rate == 0.2:
                yield JobResult(result.id, status, None, "went away\nframes", 1.5, "test")
            else:
                yield result

    play(store, sometimes)
    count = len(trainer.jobs)
    query = "SELECT purpose, seed, status, message, num_steps FROM evaluation WHERE status <> 'ok'"
    assert store.rows(query) == [
        {"purpose": "select", "seed": job_records.SELECT_SEEDS, "status": status.value,
         "message": "went away", "num_steps": 0}
    ]  # fmt: skip
    entries = {entry.candidate: entry for entry in play(store, trainer)}
    assert entries[2].learning_rate in (0.1, 0.4)  # The middle rate is the best of the others.
    assert entries[0].learning_rate == 0.2
    assert len(trainer.jobs) == count


def test_entries_are_read_back_as_they_were_stored(store):
    assert hall_entries.read_entries(store) == []
    entries = play(store, Trainer(hashed))
    assert hall_entries.read_entries(store) == entries


def test_without_meta_validation_there_is_no_such_score(store):
    entries = play(store, Trainer(hashed), config=replace(CONFIG, meta_validation=()))
    assert all(entry.meta is None and entry.final is not None for entry in entries)


def test_progress_is_reported(store):
    reported = []
    final_stages.Finals(CONFIG, 4, store, Trainer(hashed)).run(lambda *args: reported.append(args))
    assert reported == [
        *(("learning rates", done, 15) for done in range(16)),
        *(("final seeds", done, 10) for done in range(11)),
    ]


# ------------------------------------------------------------------------------ constants

TUNED = replace(CONFIG, finals=replace(CONFIG.finals, tuning=TuningConfig(budget=25)))


def from_constants(genotype, run):
    """Every number counts: the rate, and how far all constants are from a tenth."""
    values = [value for _, value in genotype.program.constants]
    return abs(np.log(genotype.learning_rate / 0.15)) + sum(abs(v - 0.1) for v in values)


def test_all_rules_are_tuned_by_one_budget_baselines_alike(store):
    trainer = Trainer(from_constants)
    entries = play(store, trainer, config=TUNED)
    evaluations = collections.Counter(
        job.candidate for job in trainer.jobs if job.purpose == "tuning"
    )
    assert set(evaluations) == {entry.candidate for entry in entries}
    assert set(evaluations.values()) == {25}
    untuned = {entry.candidate: entry for entry in play(store, Trainer(from_constants))}
    for entry in entries:
        assert entry.select < untuned[entry.candidate].select
    lion = entries[-1]
    assert lion.label == "lion"
    assert lion.program.constants != untuned[lion.candidate].program.constants
    assert (
        dict(lion.program.constants).keys()
        == dict(untuned[lion.candidate].program.constants).keys()
    )


def test_a_tuned_rule_is_what_the_figures_are_of_and_is_read_back(store):
    trainer = Trainer(from_constants)
    entries = play(store, trainer, config=TUNED)
    assert hall_entries.read_entries(store) == entries
    shown = {
        (job.candidate, str(job.genotype.program), job.genotype.learning_rate)
        for job in trainer.jobs
        if job.purpose in ("final", "meta-final")
    }
    assert shown == {(e.candidate, str(e.program), e.learning_rate) for e in entries}
    again = Trainer(from_constants)
    assert play(store, again, config=TUNED) == entries
    assert not again.jobs


@pytest.mark.parametrize("lifetime", [20, 60, 139])
def test_finals_of_a_store_of_version_5_go_on_where_they_stopped(store, tmp_path, lifetime):
    """Its runs have no constants: the learning rates tell which they are."""
    expected = play(store, whole := Trainer(from_constants), config=TUNED)
    older = tmp_path / "older"
    older.mkdir()
    trainer = Trainer(from_constants)

    def dies(runs):
        for result in trainer(runs):
            if len(trainer.jobs) > lifetime:
                trainer.jobs.pop()
                raise Killed
            yield result

    with Store.create(older) as other:
        with other.transaction():
            for candidate, row in RULES.items():
                add(other, candidate, *row)
        with pytest.raises(Killed):
            play(other, dies, config=TUNED)
    older_stores.downgrade(older, 5)
    with Store.open(older) as other:
        assert play(other, trainer, config=TUNED) == expected
        assert hall_entries.read_entries(other) == expected
    assert len(trainer.jobs) == len(whole.jobs)


# ------------------------------------------------------------------------------ the funnel

STAGES = (
    StageConfig("B", (ProxyConfig("quadratic", 50),), rate_factors=(0.5, 1.0)),
    StageConfig("C", (ProxyConfig("quadratic", 100),), seeds=1, rate_factors=(1.0,)),
)
FUNNEL = replace(CONFIG, finals=replace(CONFIG.finals, stages=STAGES))
FIRST_STAGE = len(CONFIG.tasks) + len(CONFIG.meta_validation)


def by_rule(losses):
    """Losses at the stages by label; elsewhere the shorter rule is the better one."""

    def loss(genotype, run):
        text = str(replace(genotype.program, name="rule", doc=""))
        if run.proxy < FIRST_STAGE:
            return len(text) / 1000
        name = next((n for n, row in RULES.items() if row[0] == text), genotype.program.name)
        return losses[run.proxy - FIRST_STAGE].get(name, 0.0)

    return loss


def test_only_what_beats_every_baseline_goes_on(store):
    trainer = Trainer(by_rule([{2: -1.0, 0: -0.4, 4: -0.9, "lion": -0.5}, {2: 0.3, 4: -0.3}]))
    entries = {entry.label: entry for entry in play(store, trainer, config=FUNNEL)}
    passed = {label: entry.stages for label, entry in entries.items()}
    assert passed == {"#2": 1, "adamw (initial)": 0, "#4": 2, "sgd": 0, "lion": 0}
    assert [label for label, entry in entries.items() if entry.winner] == ["#4"]
    at = {
        stage.name: {job.candidate for job in trainer.jobs if job.purpose == stage.purpose}
        for stage in STAGES
    }
    assert {c for c in at["B"] if c >= 0} == {0, 2, 4}
    assert {c for c in at["C"] if c >= 0} == {2, 4}
    assert len({c for c in at["C"] if c < 0}) == 2
    assert hall_entries.read_entries(store) == list(entries.values())


def test_a_stage_takes_the_best_of_its_rates_on_seeds_of_its_own(store):
    def loss(genotype, run):
        if run.proxy < FIRST_STAGE:
            return abs(np.log(genotype.learning_rate / 0.2))
        assert run.seed >= job_records.STAGE_SEEDS
        short = len(str(genotype.program)) == len(str(Program.parse(RULES[2][0])))
        return -1.0 if short and genotype.learning_rate == pytest.approx(0.1) else 0.0

    entries = {entry.label: entry for entry in play(store, Trainer(loss), config=FUNNEL)}
    assert entries["#2"].stages == 1  # at half its rate, which the last stage does not try
    assert entries["#2"].learning_rate == pytest.approx(0.2)


def test_where_nobody_passes_nobody_goes_on(store):
    trainer = Trainer(by_rule([{"sgd": -5.0}, {}]))
    entries = play(store, trainer, config=FUNNEL)
    assert {entry.stages for entry in entries} == {0}
    assert [entry.label for entry in entries if entry.winner] == ["#2"]
    assert all(job.purpose != "stage C" for job in trainer.jobs)


def test_the_winner_may_be_chosen_by_meta_validation(store):
    config = replace(CONFIG, finals=replace(CONFIG.finals, choose_by="meta_validation"))

    def loss(genotype, run):
        size = len(str(replace(genotype.program, name="rule", doc=""))) / 1000
        chooses = run.seed < job_records.FINAL_SEEDS
        return -size if run.proxy >= len(CONFIG.tasks) and chooses else size

    entries = play(store, Trainer(loss), config=config)
    assert [entry.label for entry in entries if entry.winner] == ["#4"]
    assert all(entry.meta > 0 for entry in entries)  # The score shown is that of other seeds.
    assert [entry.label for entry in play(store, Trainer(loss)) if entry.winner] == ["#2"]


def test_without_meta_validation_the_proxies_choose(store):
    finals = replace(CONFIG.finals, choose_by="meta_validation")
    trainer = Trainer(by_rule([{"sgd": -5.0}, {}]))
    (winner,) = [
        entry.label
        for entry in play(store, trainer, config=replace(CONFIG, finals=finals, meta_validation=()))
        if entry.winner
    ]
    entries = play(store, trainer, config=replace(CONFIG, meta_validation=()))
    assert [entry.label for entry in entries if entry.winner] == [winner]


def test_meta_validation_may_have_learning_rates_of_its_own(store):
    """The rules are best there at four times the rate that is best on the proxies."""
    factors = (0.25, 1.0, 4.0, 16.0)

    def loss(genotype, run):
        best = 0.8 if run.proxy >= len(CONFIG.tasks) else 0.2
        return abs(float(np.log(genotype.learning_rate / best)))

    config = replace(CONFIG, finals=replace(CONFIG.finals, meta_rate_factors=factors))
    trainer = Trainer(loss)
    entries = play(store, trainer, config=config)
    assert all(entry.learning_rate == 0.2 for entry in entries)
    assert all(entry.meta == pytest.approx(0.0) for entry in entries)

    def rates(purpose):
        return {job.genotype.learning_rate for job in trainer.jobs if job.purpose == purpose}

    assert rates("meta-select") == {0.2 * factor for factor in factors}
    assert rates("meta-final") == {0.8}
    own = play(store, Trainer(loss))
    assert all(entry.meta == pytest.approx(np.log(4)) for entry in own)


@pytest.mark.parametrize("factors", [(), (1.0, -1.0)])
def test_learning_rates_of_meta_validation_are_checked(factors):
    with pytest.raises(ValueError, match="meta_rate_factors"):
        FinalsConfig(meta_rate_factors=factors)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": ()}, "has no tasks"),
        ({"tasks": STAGES[0].tasks * 2}, "names quadratic twice"),
        ({"seeds": 0}, "seeds is 0"),
        ({"rate_factors": (1.0, 0.0)}, "above 0"),
        ({"rate_factors": ()}, "above 0"),
    ],
)
def test_stages_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        StageConfig(**{"name": "B", "tasks": STAGES[0].tasks, **settings})


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two stages are named B"):
        FinalsConfig(stages=(STAGES[0], STAGES[0]))


def test_finals_noted_by_an_older_version_are_the_same_finals(store):
    """Which had fewer settings: its text differs, what it says does not."""
    play(store, Trainer(hashed))
    (row,) = store.rows("SELECT config FROM finals")
    older = json.loads(row["config"])
    del older["meta_rate_factors"], older["tuning"]["method"]
    with store.transaction():
        store.execute("UPDATE finals SET config = ?", (json.dumps(older),))
    entries = play(store, Trainer(hashed))
    assert hall_entries.read_entries(store) == entries
    assert store.first("SELECT COUNT(*) FROM finals") == 1
    other = replace(CONFIG, finals=replace(CONFIG.finals, final_seeds=5))
    play(store, Trainer(hashed), config=other)
    assert store.first("SELECT COUNT(*) FROM finals") == 2
