"""The power of the search engine: what its winners are worth at equal training steps.

    python benchmarks/search_power.py --runs DIR [--searches 5] [--scale 10] [--jobs 1]
        [--arm NAME key=value ...] [--common key=value ...] [--only evolution constants]
        [--part adamw]

*Hypothesis*, fixed before anything was run: at the quickstart's budget and at ten times it,
evolution is ahead of constants alone and of random search by at least 0.05 in mean log loss on
fresh seeds, with a 95% interval clear of 0. (Best of founders is no control: it knows all shipped
rules, of which the search starts from a few. It says what knowing them is worth.) It is tested
twice, with the founders of the quickstart, and with AdamW alone (`--part adamw --common
'founders=[]'`), where the controls do not start from Muon.

*Arms*, each a set of overrides of one config, by default the quickstart's:

| arm | |
|---|---|
| evolution | as configured |
| random | random search around the founders, about five mutations away, without selection |
| constants | the founders' structures; mutations of constants and the learning rate alone |
| best_of_founders | no search: the shipped rules that fit race at eight rates each, same budget |
| `--arm NAME key=value ...` | any further one, spelled as in `veldt search --key value` |

`--common` overrides hold for all arms. The first two controls are those of Lion's paper (arXiv
2302.06675, section 2.1).

*Budget.* `--budget` training steps a search, `--scale` times that, counted by the search itself
(`max_steps`): candidates, challenges and meta-validation. 425,000 is what the 2,200 programs of
`two_digits.yaml` took with seed 0 before this was written: 351,000 for the fitness, 70,000 for
challenges, the rest for meta-validation. Processor time, with compiling and finals, is reported
beside it.

*Measure.* What a search hands out: the winner of its finals, which are alike for all arms and
small (`FINALS`), at a quarter and at all of the budget. It is scored on 32 fresh seeds of the
proxies, and at the whole budget on four tasks that are neither proxies nor meta-validation, each
at the best of five learning rates around its own; always of the base config, whatever an arm
changes. A gain is the mean log loss less that of AdamW, Lion or Muon, which have their rate and all
constants tuned on the proxies by 13 rates and CMA-ES, 134 evaluations on 8 seeds (429,000 steps) at
any scale, and are scored on the same seeds: -0.1 is about 10% less loss. Flattery is the search's
own estimate of its winner less its fresh score. Intervals are 95%, by Student's t over searches,
and differences of arms are paired by the search's seed, with which both arms train from the same
parameters on the same batches; those not paired (Welch) are in the file.

Each (arm, seed) is a run directory under `--runs`; finished ones are not run again, and an
interrupted one is continued. Another budget or other overrides under a name are refused. `--report`
makes no searches. Writes `results/search_power.json`, where each scale has a part of its own, whose
name begins with what `--part` says.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import intervals
import power_scores

from veldt import config as config_lib
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution import step_budget
from veldt.search.run import run_search
from veldt.search.storage.hall_entries import Entry
from veldt.search.storage.store import Store
from veldt.tasks.common import compiling

Scored = Mapping[str, Mapping[int, list[dict[str, Any]]]]
"""What searches handed out and its scores: by arm, by seed, by part of the budget."""

RESULTS: Final = Path(__file__).parent / "results" / "search_power.json"
BUDGET: Final = 425_000
FRACTIONS: Final = (0.25, 1.0)
RACE: Final = "best_of_founders"
REFERENCE: Final = "evolution"
ARMS: Final[Mapping[str, tuple[str, ...]]] = {
    REFERENCE: (),
    "random": ("parents=initial", "tournament_size=1", "mutation.repeat=0.8"),
    "constants": (
        "mutation.insert=0",
        "mutation.delete=0",
        "mutation.modify=0",
        "mutation.rewire=0",
        "mutation.unwire=0",
        "mutation.graft=0",
        "mutation.constant=1",
        "mutation.learning_rate=1",
    ),
    RACE: (),
}
FINALS: Final = (
    "finals.baselines=[]",
    "finals.shortlist=24",
    "finals.tuning.budget=0",
    "finals.max_entries=4",
    "finals.select_seeds=4",
    "finals.final_seeds=1",
)
ONE_CORE: Final = ("pool.backend=inline", "pool.num_workers=1", "time_limit_s=null")
# What an arm may not set: it would not be compared on equal terms.
EQUAL: Final = (
    "finals",
    "seed",
    "max_steps",
    "max_evaluations",
    "time_limit_s",
    "proposers",
    "pool",
)
UNSEEN: Final = ("breast_cancer_mlp:300", "digits_vae:300", "char_gru:200", "digits_mixer:100")
# No trained program takes less than one check of one run, so this is more than a budget allows.
STEPS_OF_A_CHECK: Final = 40


@final
class Search(NamedTuple):
    """One search to be made: an arm at a seed.

    Attributes:
      arm: Name of the arm.
      seed: Seed of the search.
      base: Config that is overridden.
      overrides: Overrides, as `key=value`.
      budget: Training steps, or trained programs.
      folder: Folder of all runs.
      counted: Field of the config that the budget is.
      fractions: Parts of the budget at which the search hands out a rule, increasing.
    """

    arm: str
    seed: int
    base: str
    overrides: tuple[str, ...]
    budget: int
    folder: Path
    counted: str = "max_steps"
    fractions: tuple[float, ...] = FRACTIONS

    @property
    def run_dir(self) -> Path:
        """The directory of the run."""
        return self.folder / f"{self.arm}_{self.seed}"

    @property
    def signature(self) -> list[Any]:
        """What must be the same for stored results to be those of this search."""
        by = [] if self.counted == "max_steps" else [self.counted, list(self.fractions)]
        return [self.base, list(self.overrides), self.budget, *by]

    def config(self, fraction: float = 1.0) -> SearchConfig:
        """Return the config of the search with a part of the budget."""
        limits = {
            "max_steps": "null",
            "max_evaluations": max(self.budget // STEPS_OF_A_CHECK, 1),
            self.counted: round(fraction * self.budget),
        }
        own = (f"seed={self.seed}", *(f"{name}={value}" for name, value in limits.items()))
        return load(self.base, (*self.overrides, *FINALS, *ONE_CORE, *own))


def load(base: str, overrides: Sequence[str]) -> SearchConfig:
    """Return a config with overrides, given as `key=value`."""
    words = [f"--{one}" for one in overrides]
    config: SearchConfig = config_lib.load_config(SearchConfig, base, words)
    return config


def run(search: Search) -> list[dict[str, Any]]:
    """Make a search, or what is left of it, and return what it hands out by part of the budget."""
    path = search.run_dir / "handed_out.json"
    stages: list[dict[str, Any]] = []
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["signature"] != search.signature:
            raise SystemExit(
                f"{search.run_dir} has another budget or other overrides ({kept['signature']}, and "
                f"not {search.signature}): give another --runs"
            )
        stages = kept["stages"]
    fractions = (1.0,) if search.arm == RACE else search.fractions
    compiling.keep_compiled()
    for fraction in fractions[len(stages) :]:
        before = time.process_time()
        if search.arm == RACE:
            found = power_scores.race(search.config(), search.budget)
        else:
            result = run_search.run_search(search.config(fraction), search.run_dir, resume=True)
            found = handed_out(search.run_dir, result.entries)
        earlier = stages[-1]["processor_s"] if stages else 0.0
        found["processor_s"] = earlier + time.process_time() - before
        stages.append({"fraction": fraction, **found})
        search.run_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"signature": search.signature, "stages": stages}, indent=1))
    return stages


def handed_out(run_dir: Path, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the winner of a search's finals, and what the search had made by then."""
    winner = next(entry for entry in entries if entry.winner)
    assert winner.learning_rate is not None
    with Store.open(run_dir, read_only=True) as store:
        steps = step_budget.steps_spent(store)
        total = store.first("SELECT SUM(num_steps) FROM evaluation")
        proposed = store.rows(
            "SELECT COUNT(*) AS proposed, COUNT(DISTINCT candidate) AS distinct_, "
            "SUM(source = 'evaluated') AS trained, MAX(told_s) AS seconds FROM proposal"
        )[0]
    return {
        "winner": power_scores.plain(Genotype(winner.program, winner.learning_rate)),
        "label": winner.label,
        "estimate": winner.search_fitness,
        "select": winner.select,
        "steps": steps,
        "finals_steps": total - steps,
        "trained": proposed["trained"],
        "proposed": proposed["proposed"],
        "distinct": proposed["distinct_"],
        "search_s": proposed["seconds"],
    }


def score(search: Search, stages: Sequence[dict[str, Any]], scorer: power_scores.Scorer) -> Any:
    """Return a search's stages with the scores of what they handed out, which are kept."""
    path = search.run_dir / "scores.json"
    kept: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for stage in stages[len(kept) :]:
        rule = power_scores.rule_of(stage["winner"])
        found: dict[str, Any] = {"fresh": scorer.fresh(rule)}
        if stage["fraction"] == 1.0:
            found["unseen"] = scorer.unseen(rule)
        kept.append(found)
        path.write_text(json.dumps(kept))
    return [{**stage, **scores} for stage, scores in zip(stages, kept, strict=True)]


def tuned(scorer: power_scores.Scorer, signature: Any, folder: Path) -> dict[str, Any]:
    """Return the tuned baselines, which are kept."""
    path = folder / "baselines.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("signature", signature) != signature:
        raise SystemExit(f"{path} is of other tasks: give another --runs")
    kept["signature"] = signature
    for name in power_scores.BASELINES:
        if name not in kept:
            kept[name] = scorer.tuned(name)
            path.write_text(json.dumps(kept, indent=1))
            print(f"{name} tuned: {statistics.mean(kept[name]['fresh']):+.3f}", flush=True)
    return kept


def figures(stages: Sequence[dict[str, Any]], baselines: Mapping[str, Any]) -> dict[str, float]:
    """Return one search's figures, by name."""
    last = stages[-1]
    fresh = statistics.mean(last["fresh"])
    found = {}
    for name in power_scores.BASELINES:
        found[f"less_{name}"] = fresh - statistics.mean(baselines[name]["fresh"])
        theirs = baselines[name]["unseen"]
        found[f"unseen_less_{name}"] = statistics.mean(
            last["unseen"][task] - theirs[task] for task in theirs
        )
    return {
        **found,
        "flattery": last["estimate"] - fresh,
        "select_flattery": last["select"] - fresh,
        "trained": last["trained"],
        "duplicates": 1 - last["distinct"] / max(last["proposed"], 1),
        "steps": last["steps"],
        "processor_s": last["processor_s"],
    }


def summarise(
    runs: Scored, baselines: Mapping[str, Any], reference: str = REFERENCE
) -> dict[str, Any]:
    """Return the figures of all arms, the differences between them, and the curves.

    Args:
      runs: What was handed out, with its scores, by arm and seed.
      baselines: Tuned baselines.
      reference: Arm that the others are compared with.
    """
    adamw = statistics.mean(baselines["adamw"]["fresh"])
    arms: dict[str, Any] = {}
    for arm, of_seed in runs.items():
        each = {seed: figures(stages, baselines) for seed, stages in of_seed.items()}
        names = list(next(iter(each.values())))
        arms[arm] = {
            "seeds": list(each),
            "figures": {
                name: intervals.of_mean([one[name] for one in each.values()]) for name in names
            },
            "each": {name: [one[name] for one in each.values()] for name in names},
            "curve": [
                {
                    "fraction": stage["fraction"],
                    **intervals.of_mean(
                        [
                            statistics.mean(stages[number]["fresh"]) - adamw
                            for stages in of_seed.values()
                        ]
                    ),
                }
                for number, stage in enumerate(next(iter(of_seed.values())))
            ],
            "winners": [stages[-1]["winner"] for stages in of_seed.values()],
        }
    return {"arms": arms, "differences": differences(arms, reference)}


def differences(arms: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """Return how far each arm is from the reference: below 0 the reference is ahead."""
    found: dict[str, Any] = {}
    if reference not in arms:
        return found
    ours = arms[reference]
    for arm, theirs in arms.items():
        both = [seed for seed in ours["seeds"] if seed in theirs["seeds"]]
        if arm == reference or not both:
            continue
        found[arm] = {}
        for name in ("less_adamw", "unseen_less_adamw"):
            ours_by, theirs_by = (
                dict(zip(one["seeds"], one["each"][name], strict=True)) for one in (ours, theirs)
            )
            found[arm][name] = {
                "paired": intervals.of_mean([ours_by[seed] - theirs_by[seed] for seed in both]),
                "welch": intervals.of_difference(ours["each"][name], theirs["each"][name]),
            }
    return found


def print_tables(summary: Mapping[str, Any], reference: str = REFERENCE) -> None:
    """Print what was found."""
    print(
        f"\n{'arm':18}{'n':>3}{'less AdamW':>18}{'less Lion':>18}{'less Muon':>18}"
        f"{'unseen, AdamW':>18}{'flattery':>18}{'trained':>9}{'again':>7}{'cpu s':>7}"
    )
    names = ("less_adamw", "less_lion", "less_muon", "unseen_less_adamw", "flattery")
    for arm, row in summary["arms"].items():
        of = row["figures"]
        cells = "".join(f"{intervals.text(of[name]):>18}" for name in names)
        print(
            f"{arm:18}{len(row['seeds']):3}{cells}{of['trained']['mean']:9,.0f}"
            f"{of['duplicates']['mean']:7.0%}{of['processor_s']['mean']:7.0f}"
        )
    print("\nless tuned AdamW on fresh seeds, by part of the budget")
    for arm, row in summary["arms"].items():
        points = "   ".join(f"{one['fraction']:g}: {intervals.text(one)}" for one in row["curve"])
        print(f"{arm:18}{points}")
    print(f"\n{reference} less the others, paired by seed: fresh seeds; unseen tasks")
    for arm, row in summary["differences"].items():
        fresh, unseen = (row[key]["paired"] for key in ("less_adamw", "unseen_less_adamw"))
        print(f"{arm:18}{intervals.text(fresh):>18}{intervals.text(unseen):>18}")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--base", default="quickstart")
    parser.add_argument("--arm", action="append", nargs="+", default=[])
    parser.add_argument("--common", nargs="+", default=[], metavar="key=value")
    parser.add_argument("--only", nargs="+", help="of all arms")
    parser.add_argument("--searches", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--part", default="", help="first words of the part's name in the results")
    parser.add_argument("--unseen", nargs="+", default=UNSEEN, metavar="task:steps")
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time, a core each")
    parser.add_argument("--report", action="store_true", help="only what is finished")
    args = parser.parse_args(words)
    arms = dict(ARMS)
    for name, *overrides in args.arm:
        if name in arms:
            parser.error(f"there is an arm {name} already")
        arms[name] = tuple(overrides)
    if unknown := set(args.only or ()) - set(arms):
        parser.error(f"no arm {', '.join(sorted(unknown))}; there are {', '.join(arms)}")
    args.arms = {name: arms[name] for name in arms if not args.only or name in args.only}
    for word in (*args.common, *(one for arm in args.arms.values() for one in arm)):
        if word.partition("=")[0].partition(".")[0].replace("-", "_") in EQUAL[1:]:
            parser.error(f"{word}: arms are compared at equal budgets and finals")
    for arm in args.arms.values():
        if any(word.startswith("finals") for word in arm):
            parser.error("finals are alike for all arms: set them by --common")
    args.unseen = [ProxyConfig(t, int(n)) for t, n in (one.split(":") for one in args.unseen)]
    return args


def check_unseen(searches: Sequence[Search], unseen: Sequence[ProxyConfig]) -> None:
    """Raise an error where a search trains on an unseen task."""
    for search in searches:
        config = search.config()
        seen = {task.task for task in (*config.tasks, *config.meta_validation)}
        if both := seen & {task.task for task in unseen}:
            raise SystemExit(f"{search.arm} trains on {', '.join(both)}: give other --unseen")


def measure(
    searches: Sequence[Search],
    base: SearchConfig,
    unseen: Sequence[ProxyConfig],
    *,
    jobs: int = 1,
    only_finished: bool = False,
) -> tuple[Scored, dict[str, Any]]:
    """Make searches, or what is left of them, and score what they hand out.

    Args:
      searches: Searches of all arms, all in one folder.
      base: Config whose tasks the winners are scored on.
      unseen: Further tasks that they are scored on.
      jobs: Number of searches at a time.
      only_finished: Whether no search is made.

    Returns:
      What was handed out with its scores, and the tuned baselines.
    """
    check_unseen(searches, unseen)
    folder = searches[0].folder
    scorer = power_scores.Scorer(base, unseen)
    folder.mkdir(parents=True, exist_ok=True)
    runs: dict[str, dict[int, list[dict[str, Any]]]] = {one.arm: {} for one in searches}
    # A process for each search, so that none inherits what another has compiled or kept.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as executor:
        futures = {}
        for one in searches:
            finished = (one.run_dir / "handed_out.json").exists()
            if not only_finished or finished:
                futures[executor.submit(run, one)] = one
        for future in concurrent.futures.as_completed(futures):
            one, stages = futures[future], future.result()
            runs[one.arm][one.seed] = stages
            print(f"{one.arm} {one.seed}: {stages[-1]['processor_s']:.0f} s", flush=True)
    baselines = tuned(scorer, [base.objective, tasks_of(base, unseen)], folder)
    scored = {
        arm: {
            one.seed: score(one, runs[arm][one.seed], scorer)
            for one in searches
            if one.arm == arm and one.seed in runs[arm]
        }
        for arm in runs
        if runs[arm]
    }
    return scored, baselines


def tasks_of(base: SearchConfig, unseen: Sequence[ProxyConfig]) -> list[dict[str, Any]]:
    """Return all tasks that winners are scored on, as plain data."""
    return [dataclasses.asdict(task) for task in (*base.tasks, *unseen)]


def main() -> None:
    """Search, score, print and write `results/search_power.json`."""
    args = parse()
    common = tuple(args.common)
    searches = [
        Search(arm, seed, args.base, (*common, *own), args.budget * args.scale, args.runs)
        for seed in range(args.first_seed, args.first_seed + args.searches)
        for arm, own in args.arms.items()
    ]
    base = load(args.base, common)
    scored, baselines = measure(
        searches, base, args.unseen, jobs=args.jobs, only_finished=args.report
    )
    summary = summarise(scored, baselines)
    print_tables(summary)
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    part = f"{args.part}_" if args.part else ""
    content[f"{part}scale_{args.scale}"] = {
        "command": f"python benchmarks/search_power.py --runs DIR --scale {args.scale}",
        "base": args.base,
        "founders": ["adamw", *(founder.rule for founder in base.founders)],
        "common": list(common),
        "overrides": {arm: list(own) for arm, own in args.arms.items()},
        "budget": args.budget * args.scale,
        "tasks": tasks_of(base, args.unseen),
        "baselines": {name: baselines[name] for name in power_scores.BASELINES},
        **summary,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
