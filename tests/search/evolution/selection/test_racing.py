"""The race: the chance it states is kept, by simulation; levels follow from what was recorded."""

import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import fakes, rerun
from veldt.search.config import evolution_config, search_config
from veldt.search.config.evolution_config import FounderConfig, RacingConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.evaluation import fingerprint, probe
from veldt.search.evaluation.evaluator import Evaluator
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun, RunResult, Status
from veldt.search.evolution import founders
from veldt.search.evolution.engine import Evolution
from veldt.search.evolution.selection import racing
from veldt.search.evolution.selection.racing import Control, Race, Role
from veldt.search.program import Program
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.pool import driver, inline

# ------------------------------------------------------------------------------ the guarantee

TENTH = RacingConfig(chance=0.1, control=0.5, top=0.5, memory=40)


def draw_curves(rng, count):
    """Exchangeable candidates: float64 [count, 2 runs, 3 checks], good ones early ahead or late."""
    skill = rng.standard_t(3, size=(count, 1, 1))
    pace = rng.normal(size=(count, 1, 1))
    progress = np.linspace(1 / 3, 1, 3)
    noise = 0.3 * rng.normal(size=(count, 2, 3))
    return skill * progress + pace * (1 - progress) + noise


def as_controls(curves, roles):
    return [
        Control(i, role, float(curve[:, -1].mean()), tuple(map(tuple, curve.tolist())))
        for i, (curve, role) in enumerate(zip(curves, roles, strict=True))
    ]


def brute_totals(curves):
    """Running totals [count, R - 1] by NumPy: the second run's checks are added to the first's."""
    return np.concatenate([curves[:, 0], curves[:, 0, -1:] + curves[:, 1]], axis=1)[:, :-1]


def test_a_good_candidate_is_dropped_with_the_stated_chance_and_one_place_less_would_not_do():
    rng = np.random.default_rng(0)
    num_shaping, num_calibrating, num_new = 7, 19, 10
    roles = [Role.SHAPES] * num_shaping + [Role.CALIBRATES] * num_calibrating
    rates, off_by_one = [], []
    for _ in range(500):
        curves = draw_curves(rng, len(roles) + num_new)
        known, new = curves[: len(roles)], curves[len(roles) :]
        found = racing.calibrate(TENTH, as_controls(known, roles))
        # By the definition: the best 10 of 20 are good, so 9 others set the level, at their worst.
        calibrating = known[num_shaping:]
        fitness = calibrating[:, :, -1].mean(axis=1)
        lags = ((brute_totals(calibrating) - found.centre) / found.scale).max(axis=1)
        ranked = np.argsort(fitness)
        of_good = np.sort(lags[ranked[:9]])
        assert found.level == pytest.approx(of_good[8], rel=1e-12)
        good = new[:, :, -1].mean(axis=1) < fitness[ranked[9]]
        lags = ((brute_totals(new) - found.centre) / found.scale).max(axis=1)
        dropped = [
            racing.where_dropped(found.levels(), tuple(map(tuple, curve.tolist()))) is not None
            for curve in new
        ]
        assert dropped == list(lags > found.level)
        # Weighted, so that each new candidate counts alike whatever the others are.
        rates.append((good.sum(), (good & dropped).sum()))
        off_by_one.append((good.sum(), (good & (lags > of_good[7])).sum()))
    rate, error = ratio(rates)
    assert abs(rate - 0.1) < 4 * error < 0.05  # Without ties the bound is met exactly.
    rate, error = ratio(off_by_one)
    assert rate - 4 * error > 0.1


def ratio(counts):
    """Second by first column's sums, with a standard error over rows."""
    below, above = np.array(counts, float).T
    rate = above.sum() / below.sum()
    return rate, np.sqrt(((above - rate * below) ** 2).sum()) / below.sum()


def test_a_candidate_that_fails_is_not_good_and_takes_no_part_in_the_level():
    rng = np.random.default_rng(1)
    roles = [Role.SHAPES] * 7 + [Role.CALIBRATES] * 39
    controls = as_controls(draw_curves(rng, len(roles)), roles)
    whole = racing.calibrate(TENTH, controls)
    good = sorted(controls[7:], key=lambda one: one.fitness)[:19]
    failed = [
        one if one in good or one.role is Role.SHAPES else
        dataclasses.replace(one, fitness=math.inf, curves=one.curves[:1])
        for one in controls
    ]  # fmt: skip
    assert racing.calibrate(TENTH, failed).level == whole.level
    assert racing.calibrate(TENTH, failed).bar is None and whole.bar is not None
    assert not whole.is_good(math.inf, controls[0].curves)
    worst = max(controls[7:], key=lambda one: one.fitness)
    assert whole.is_good(good[0].fitness, good[0].curves)
    assert not whole.is_good(worst.fitness, worst.curves)


@given(st.integers(0, 45), st.sampled_from([0.05, 0.1, 0.3, 0.5]), st.sampled_from([0.3, 1.0]))
def test_nothing_is_dropped_with_too_few(num_calibrating, chance, top):
    config = RacingConfig(chance=chance, control=0.5, top=top, memory=100)
    roles = [Role.SHAPES] * 5 + [Role.CALIBRATES] * num_calibrating
    controls = as_controls(draw_curves(np.random.default_rng(2), len(roles)), roles)
    found = racing.calibrate(config, controls)
    assert racing.calibrate(config, controls[1:]) is None  # Four shape nothing.
    if not num_calibrating:
        assert found is None
        return
    num_good = min(math.ceil(top * (num_calibrating + 1)) - 1, num_calibrating)
    enough = num_good >= 1 / chance - 1
    assert math.isfinite(found.level) == enough == bool(found.levels())
    assert racing.where_dropped(found.levels(), ((1e9,), ())) == (0 if enough else None)


def test_the_last_check_drops_no_one():
    roles = [Role.SHAPES] * 5 + [Role.CALIBRATES] * 40
    controls = as_controls(draw_curves(np.random.default_rng(3), len(roles)), roles)
    levels = racing.calibrate(TENTH, controls).levels()
    assert [len(level) for level in levels] == [3, 3]
    assert np.isfinite(levels[0]).all() and levels[1][2] == math.inf


def test_a_level_is_a_function_of_the_memory_that_a_proposal_may_know():
    config = RacingConfig(chance=0.2, control=0.5, top=0.5, memory=24)
    rng = np.random.default_rng(4)
    roles = [Role.SHAPES if i % 4 == 0 else Role.CALIBRATES for i in range(60)]
    controls = as_controls(draw_curves(rng, len(roles)), roles)
    race = Race(config, window=10)
    early = {}
    for one in controls:
        race.add(one)
        early[one.proposal] = race.levels(one.proposal)
    assert early[10] == () and len(set(early.values())) > 20
    for newest in (50, 59):  # Asked once more later, as by a resumed search, and from the store.
        again = Race(config, window=10, controls=controls[-34:])
        assert race.levels(newest) == again.levels(newest) == early[newest] != ()
        known = controls[newest - 23 : newest + 1]
        assert early[newest] == racing.calibrate(config, known).levels()
    assert len(race._controls) == 34
    assert Race(RacingConfig(), 10, controls).calibration(59) is None  # By default there is none.


# ------------------------------------------------------------------------------ lots and limits


def test_roles_are_drawn_by_lot_in_their_shares():
    config = RacingConfig(control=0.4)
    roles = [racing.draw_role(config, 7, i) for i in range(1500)]
    shares = {role: roles.count(role) / 1500 for role in Role}
    assert shares[Role.RACED] == pytest.approx(0.6, abs=0.04)
    assert shares[Role.SHAPES] == pytest.approx(0.1, abs=0.02)
    assert shares[Role.CALIBRATES] == pytest.approx(0.3, abs=0.03)
    assert roles != [racing.draw_role(config, 8, i) for i in range(1500)]
    # A larger control group holds the smaller one, and none of it is the mutation's draw.
    larger = [racing.draw_role(RacingConfig(control=0.7), 7, i) for i in range(1500)]
    assert all(b.is_control for a, b in zip(roles, larger, strict=True) if a.is_control)
    mutations = [np.random.default_rng((7, i)).random() < 0.4 for i in range(1500)]
    both = np.mean([a and b.is_control for a, b in zip(mutations, roles, strict=True)])
    assert both == pytest.approx(0.16, abs=0.03)


class CurveLoop:
    """A proxy whose curves are a formula of the candidate's behaviour; stops as training does."""

    NUM_CHECKS = 5

    def run(self, flow, learning_rate, run, limits):
        digest = fingerprint.fingerprint(probe.run(flow), learning_rate).digest
        seed = hashlib.sha1(f"{digest}/{run.proxy}/{run.seed}".encode()).digest()
        rng = np.random.default_rng(list(seed))
        quality = int(digest[:6], 16) / 16**6
        progress = np.arange(1, self.NUM_CHECKS + 1) / self.NUM_CHECKS
        curve = -(1 + quality) * progress + 0.05 * rng.normal(size=self.NUM_CHECKS)
        status, made = Status.OK, []
        for check, loss in enumerate(curve.tolist()):
            made.append(loss)
            if check < len(limits) and loss > limits[check]:
                status = Status.REJECTED
                break
        loss = math.exp(made[-1])
        return RunResult(run, status, loss, tuple(made), 2 * len(made), 0.001)


def test_the_worker_stops_a_run_at_the_lower_of_hurdle_and_race():
    worker = Evaluator([CurveLoop(), CurveLoop()])
    genotype = Genotype(Program.parse("def f(w, g):\n    return g\n"), 0.1)
    runs = (ProxyRun(0, 0), ProxyRun(1, 0))
    free = worker(EvalJob(genotype, runs))
    curves = tuple(result.log_losses for result in free.runs)
    totals = racing.running_totals(curves)
    assert totals == pytest.approx([*curves[0], *(curves[0][-1] + np.array(curves[1]))])

    def levels(rung, slack):
        flat = totals + 1e-6
        flat[rung] += slack
        return tuple(map(tuple, flat.reshape(2, 5).tolist()))

    passed = worker(EvalJob(genotype, runs, race=levels(0, 0)))
    assert passed == free and racing.where_dropped(levels(0, 0), curves) is None
    for rung in (0, 3, 4, 5, 8):
        race = levels(rung, -2e-6)
        outcome = worker(EvalJob(genotype, runs, race=race))
        made = tuple(result.log_losses for result in outcome.runs)
        assert outcome.status is Status.REJECTED and outcome.fitness is None
        assert sum(map(len, made)) == rung + 1
        assert racing.where_dropped(race, made) == racing.where_dropped(race, curves) == rung
    hurdle = (curves[0], (*curves[1][:2], curves[1][2] - 1e-6, *curves[1][3:]))
    both = worker(EvalJob(genotype, runs, hurdle, race=levels(9, -2e-6)))
    assert len(both.runs[1].log_losses) == 3
    assert racing.where_dropped(levels(9, -2e-6), curves) == 9
    made = tuple(result.log_losses for result in both.runs)
    assert racing.where_dropped(levels(9, -2e-6), made) is None  # It was the hurdle.


# ------------------------------------------------------------------------------ in a search

RACING = RacingConfig(chance=0.3, control=0.5, top=0.5, memory=30)


class Death(BaseException):
    """Ends a search at a chosen job, as a kill would."""


def search(directory, *, lifetime=10**9, levels=None, **changes):
    """Searches or goes on searching; without finals, and without a rule written for people.

    Levels that candidates were raced by are added to `levels`.
    """
    levels = {} if levels is None else levels
    worker = Evaluator([CurveLoop()] * 3)

    def mortal(payload):
        nonlocal lifetime
        lifetime -= 1
        if lifetime < 0:
            raise Death
        if payload.purpose == "fitness":
            levels[payload.candidate] = payload.race
        return worker(payload)

    tasks = tuple(ProxyConfig(name, 10, 5) for name in ("digits_mlp", "digits_conv"))
    settings = {"tasks": tasks, "racing": RACING, "hurdle": 0.03}
    budget = {"window": 12, "max_evaluations": 125}
    config = fakes.small_config(**(settings | budget | changes))
    directory.mkdir(exist_ok=True)
    opened = Store.open if (directory / FILE_NAME).exists() else Store.create
    with opened(directory) as store, inline.InlinePool(lambda: mortal) as pool:
        with store.transaction():
            store.set_meta(founders.META_KEY, founders.dump(founders.load(config)))
        num_told = store.first("SELECT COUNT(*) FROM proposal")
        engine = driver.OrderedDriver(pool, window=config.window, start=num_told)
        evolution = Evolution.start(config, store, engine.run_now)
        engine.run(evolution.ask, evolution.tell, evolution.settle, evolution.begun)
    return config


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    directory = tmp_path_factory.mktemp("raced")
    levels = {}
    return directory, search(directory, levels=levels), levels


def query(directory, statement):
    with Store.open(directory, read_only=True) as store:
        return store.rows(statement)


RACE = (
    "SELECT r.*, c.id AS candidate, c.status, c.fitness, c.num_steps FROM race r "
    "JOIN proposal p ON p.id = r.proposal JOIN candidate c ON c.id = p.candidate ORDER BY 1"
)


def test_a_search_drops_raced_candidates_and_stores_where(raced):
    rows = query(raced[0], RACE)
    trained = query(raced[0], "SELECT id FROM proposal WHERE source = 'evaluated' ORDER BY id")
    assert [row["proposal"] for row in rows] == [row["id"] for row in trained]
    dropped = [row for row in rows if row["dropped_at"] is not None]
    assert len(dropped) > 10
    for row in dropped:
        assert row["role"] == "raced" and row["status"] == "rejected" and row["fitness"] is None
        assert row["num_steps"] == 2 * (row["dropped_at"] + 1)
    # The hurdle rejects others, of the control group too.
    hurdled = [r for r in rows if r["status"] == "rejected" and r["dropped_at"] is None]
    assert {row["role"] for row in hurdled} == {"raced", "calibrates", "shapes"}


def test_control_candidates_are_never_raced(raced):
    directory, config, _ = raced
    rows = query(directory, RACE)
    control = [row for row in rows if row["role"] != "raced"]
    assert 30 < len(control) < 80 and not any(row["dropped_at"] for row in control)
    for row in rows:
        assert row["role"] == racing.draw_role(config.racing, config.seed, row["proposal"])
        if row["status"] == "ok":
            assert [len(curve) for curve in json.loads(row["curves"])] == [5, 5]


def test_every_drop_follows_from_the_rows_recorded_a_window_before(raced):
    directory, config, used = raced
    with Store.open(directory, read_only=True) as store:
        controls = racing.read_controls(store, 10**9)
    for row in query(directory, RACE):
        if row["role"] != "raced":
            continue
        known = [one for one in controls if one.proposal <= row["proposal"] - config.window]
        found = racing.calibrate(config.racing, known[-config.racing.memory :])
        levels = found.levels() if found else ()
        assert used[row["candidate"]] == levels
        curves = tuple(map(tuple, json.loads(row["curves"])))
        assert racing.where_dropped(levels, curves) == row["dropped_at"]
    assert len({levels for levels in used.values() if levels}) > 10


def differences(one, other):
    with Store.open(one, read_only=True) as old, Store.open(other, read_only=True) as new:
        return rerun.differences(old, new)


def test_a_raced_search_that_dies_reaches_the_same_store(raced, tmp_path):
    directory, _, levels = raced
    again = {}
    for lifetime in (90, 20, 20):
        with pytest.raises(Death):
            search(tmp_path, lifetime=lifetime, levels=again)
    search(tmp_path, levels=again)
    assert differences(tmp_path, directory) == []
    assert again == levels


def test_a_race_with_everyone_in_the_control_group_drops_no_one_and_keeps_all_curves(tmp_path):
    everyone = dataclasses.replace(RACING, control=1.0)
    search(tmp_path / "all", racing=everyone, max_evaluations=20)
    search(tmp_path / "none", racing=RacingConfig(), max_evaluations=20)
    rows = query(tmp_path / "all", "SELECT role, dropped_at FROM race")
    assert len(rows) == 20
    assert {row["role"] for row in rows} == {"shapes", "calibrates"}
    assert not any(row["dropped_at"] for row in rows)
    assert query(tmp_path / "none", "SELECT * FROM race") == []
    # Else it is the same search.
    tables = [text.split(":")[0] for text in differences(tmp_path / "all", tmp_path / "none")]
    assert tables == ["race"]


def test_founders_are_no_part_of_the_race(tmp_path):
    others = (FounderConfig("lion"), FounderConfig("sgd"))
    search(tmp_path, founders=others, num_slots=2, max_evaluations=12)
    roles = [row["role"] for row in query(tmp_path, "SELECT role FROM race ORDER BY proposal")]
    assert roles[:2] == ["founder"] * 2 and "founder" not in roles[2:]


# ------------------------------------------------------------------------------ configs


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chance": 1.0}, r"racing.chance is 1.0; it is a probability below 1"),
        ({"chance": math.nan}, "racing.chance is nan"),
        ({"control": 0.0}, r"racing.control is 0.0; it is a share"),
        ({"top": 1.5}, r"racing.top is 1.5; it is a share"),
        ({"memory": 0}, "racing.memory is 0; it must be at least 1"),
        ({"chance": 0.01}, "memory is 200, too few .* chance 0.01 .*at least 532"),
    ],
)
def test_a_race_that_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        RacingConfig(**settings)


@given(st.floats(0.01, 0.5), st.floats(0.05, 1.0))
def test_the_least_memory_is_named_and_is_enough(chance, top):
    with pytest.raises(ValueError, match="must be at least") as caught:
        RacingConfig(chance=chance, top=top, memory=1)
    least = int(str(caught.value).split("must be at least ")[1].split(",")[0])
    assert RacingConfig(chance=chance, top=top, memory=least).enabled
    num_good = math.ceil(top * ((1 - evolution_config.SHAPING) * least + 1) - 1e-9)
    assert num_good - 1 >= 1 / chance - 1 - 1e-6


def test_a_single_check_cannot_be_raced():
    one = {"tasks": (ProxyConfig("digits_mlp", 10, 1),), "meta_validation": ()}
    with pytest.raises(ValueError, match="more than one check"):
        fakes.small_config(racing=RACING, **one)
    fakes.small_config(racing=RACING, seeds_per_task=2, **one)
    fakes.small_config(**one)


def test_a_stored_config_with_or_without_a_race_is_read():
    config = fakes.small_config(racing=RACING)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    assert search_config.read_stored(plain, "store") == config
    del plain["racing"]
    assert search_config.read_stored(plain, "store").racing == RacingConfig()
    assert not RacingConfig().enabled
