"""The race, replayed over searches that were trained without one: its savings and its losses.

    python benchmarks/racing.py [--evaluations 1500] [--seeds 3] [--lots 20] [--hurdle 0.5]

Runs `two_digits.yaml`'s search once per seed with a hurdle, its own by default, and every candidate
in the control group, so that no one is dropped and all curves are stored, in `--folder` (the script
can be stopped and run again). Then the race is run over the stored curves in the order of the
search: roles drawn as a search draws them, levels from what a proposal may know of. This is done
for each chance and for several draws of the roles (*lots*), which one search would have had in its
place.

For each chance, and each share of the control group that counts as good (`top`), the table has,
over the searches,

- `steps_saved`: training steps of all candidates that the race would have saved beyond the hurdle,
  as a share; the mean over lots, and its standard error over searches;
- `good`: good candidates (as the theorem in `racing.py` counts them) that met a level in the
  first lot, those dropped, and the Clopper-Pearson 95% interval of their share, which takes drops
  to be independent, though candidates that share a level are not; `share_over_lots` is the mean
  over all lots, with its standard error over searches;
- `best_kept`: per search the rank, among all that were trained, of the fittest that was not dropped
  in the first lot (1: the best was kept), and the share of lots that dropped the best;
- `first_level`: per search, candidates trained in the first lot before one met a level; null: none
  did.

Where no level was met, the control group was too small for so small a chance. It is a replay:
candidates that the race drops remain parents as they were in the search.
"""

import argparse
import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, final

from scipy import stats  # type: ignore[import-untyped]

from veldt import config as config_lib
from veldt.search.config import evolution_config
from veldt.search.config.evolution_config import RacingConfig
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution.selection import racing
from veldt.search.evolution.selection.racing import Control, Curves, Race
from veldt.search.run import run_search
from veldt.search.storage.store import Store

RESULTS: Final = Path(__file__).parent / "results" / "racing.json"
SETTING: Final = Path(__file__).parent / "two_digits.yaml"
CHANCES: Final = (0.01, 0.05, 0.1, 0.2)
CONTROL: Final = 0.2
TOPS: Final = (0.1, 0.25)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """A candidate of a search: its proposal, steps, fitness (infinity for none) and curves."""

    proposal: int
    num_steps: int
    fitness: float
    curves: Curves


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Replayed:
    """The effect of the race in one search with one draw of the roles.

    Attributes:
      steps_saved: Share of all training steps that the race saves.
      num_good: Number of good raced candidates that met a level.
      num_good_dropped: Number of good raced candidates that met a level and were dropped.
      best_kept: Rank of the fittest that was not dropped.
      first_level: Number of candidates trained before one met a level; None if none did.
    """

    steps_saved: float
    num_good: int
    num_good_dropped: int
    best_kept: int
    first_level: int | None


def search(
    seed: int, evaluations: int, hurdle: float, folder: Path
) -> tuple[SearchConfig, list[Trained]]:
    """Run one search without a race, unless its run exists, and return all its curves."""
    config = dataclasses.replace(
        config_lib.load_config(SearchConfig, SETTING),
        seed=seed,
        hurdle=hurdle,
        max_evaluations=evaluations,
        time_limit_s=None,
        racing=RacingConfig(chance=0.5, control=1.0),
        # They are not needed here.
        finals=FinalsConfig(
            ("adamw",), max_entries=1, lowest_rate=1e-2, num_rates=1, select_seeds=1, final_seeds=2
        ),
    )
    directory = folder / f"seed_{seed}"
    run_search.run_search(config, directory, resume=True)
    query = (
        "SELECT r.proposal, r.curves, c.fitness, c.num_steps FROM race r "
        "JOIN proposal p ON p.id = r.proposal JOIN candidate c ON c.id = p.candidate "
        "ORDER BY r.proposal"
    )
    with Store.open(directory, read_only=True) as store:
        trained = [
            Trained(
                row["proposal"],
                row["num_steps"],
                math.inf if row["fitness"] is None else row["fitness"],
                tuple(map(tuple, json.loads(row["curves"]))),
            )
            for row in store.rows(query)
        ]
    return config, trained


def replay(config: SearchConfig, race: RacingConfig, trained: list[Trained], lot: int) -> Replayed:
    """Race one search's candidates in its order, the roles drawn with seed `lot`."""
    # Training steps done when a rung is reached; the first is before any.
    done = [0]
    for proxy in config.tasks * config.seeds_per_task:
        done += [done[-1] + proxy.num_steps // proxy.num_chunks * (i + 1)
                 for i in range(proxy.num_chunks)]  # fmt: skip
    state = Race(race, config.window)
    total = saved = num_good = num_good_dropped = 0
    first_level: int | None = None
    dropped: set[int] = set()
    for number, one in enumerate(trained):
        total += one.num_steps
        role = racing.draw_role(race, lot, one.proposal)
        if role.is_control:
            state.add(Control(one.proposal, role, one.fitness, one.curves))
            continue
        calibration = state.calibration(one.proposal - config.window)
        if calibration is None or not (levels := calibration.levels()):
            continue
        first_level = number if first_level is None else first_level
        rung = racing.where_dropped(levels, one.curves)
        if rung is not None:
            dropped.add(one.proposal)
            saved += one.num_steps - done[rung + 1]
        if calibration.is_good(one.fitness, one.curves):
            num_good += 1
            num_good_dropped += rung is not None
    ranked = sorted(trained, key=lambda one: one.fitness)
    kept = next(rank for rank, one in enumerate(ranked, 1) if one.proposal not in dropped)
    return Replayed(saved / total, num_good, num_good_dropped, kept, first_level)


def summarise(searches: Sequence[Sequence[Replayed]]) -> dict[str, Any]:
    """Return one row of the table, from the lots of each search."""
    firsts = [lots[0] for lots in searches]
    num_good = sum(one.num_good for one in firsts)
    num_dropped = sum(one.num_good_dropped for one in firsts)
    interval: list[float] | None = None
    if num_good:
        exact = stats.binomtest(num_dropped, num_good).proportion_ci(0.95, method="exact")
        interval = [round(float(exact.low), 4), round(float(exact.high), 4)]
    shares = [
        sum(one.num_good_dropped for one in lots) / sum(one.num_good for one in lots)
        for lots in searches
        if any(one.num_good for one in lots)
    ]
    return {
        "steps_saved": spread([statistics.mean(one.steps_saved for one in x) for x in searches]),
        "good": {
            "met_a_level": num_good,
            "dropped": num_dropped,
            "share": round(num_dropped / num_good, 4) if num_good else None,
            "interval_95": interval,
            "share_over_lots": spread(shares),
        },
        "best_kept": {
            "rank": [one.best_kept for one in firsts],
            "share_of_lots_that_dropped_the_best": statistics.mean(
                one.best_kept > 1 for one in itertools.chain.from_iterable(searches)
            ),
        },
        "first_level": [one.first_level for one in firsts],
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return a mean over searches and its standard error; null where there are too few."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {
        "mean": round(statistics.mean(values), 4) if values else None,
        "standard_error": None if error is None else round(error, 4),
    }


def main() -> None:
    """Search, replay, print and write `results/racing.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--evaluations", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lots", type=int, default=20)
    parser.add_argument("--hurdle", type=float, default=0.5, help="as SearchConfig's; inf: none")
    parser.add_argument("--folder", type=Path, default=Path("runs/racing"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    found = [search(seed, args.evaluations, args.hurdle, args.folder) for seed in range(args.seeds)]
    table = []
    for top, chance in itertools.product(TOPS, CHANCES):
        # A small chance needs a longer memory than the default.
        memory = max(RacingConfig().memory, evolution_config.least_memory(chance, top))
        race = RacingConfig(chance=chance, control=CONTROL, top=top, memory=memory)
        searches = [
            [replay(config, race, trained, lot) for lot in range(args.lots)]
            for config, trained in found
        ]
        table.append({"chance": chance, "top": top, "memory": memory, **summarise(searches)})
        print(json.dumps(table[-1]), flush=True)
    config, _ = found[0]
    report = {
        "command": f"python benchmarks/racing.py --evaluations {args.evaluations} "
        f"--seeds {args.seeds} --lots {args.lots} --hurdle {args.hurdle:g}",
        "tasks": [dataclasses.asdict(proxy) for proxy in config.tasks],
        "control": CONTROL,
        "searches": [
            {
                "seed": config.seed,
                "trained": len(trained),
                "ended": sum(math.isfinite(one.fitness) for one in trained),
            }
            for config, trained in found
        ],
        "races": table,
    }
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
