"""What a language model adds to a search, at equal programs and at equal processor time.

    python benchmarks/llm_operator.py --runs DIR [--url URL --model NAME [--key-env VARIABLE]
        [--grammar llama_cpp|vllm] [--max-tokens-total N] [--about WORDS]]
        [--searches 3] [--programs 800] [--jobs 1] [--common key=value ...] [--only ARM ...]

*Hypotheses*, fixed before anything was run. In mean log loss of the winners on fresh seeds, at
equal trained programs: (1) mutation is ahead of random programs from the grammar, and (2) of random
search one mutation away from the initial rule, each by at least 0.05 with a 95% interval clear of
0: what evolution knows of its parents matters. (3) A mix of a strong model and mutation is ahead of
mutation alone by at least 0.05, with an interval clear of 0. (4) A model of 135 million parameters
that is held to the grammar is not ahead of random programs from that grammar by as much.

*Arms*, each a set of overrides of one config, by default the quickstart's:

| arm | |
|---|---|
| mutation | as configured, without a model |
| best_of_n | each child is the initial rule with one mutation: the best of as many tries |
| grammar | `llm.share: 1`, and the "model" draws random programs from the grammar (this script) |
| model | `llm.share: 1`: every proposal is the model's, where it had an answer that could be read |
| mixed | the bandit chooses between the model and mutation for up to half of the proposals |

The last two need `--url` and `--model`. The first proposals of all arms are mutation's, since the
first answers are used a window after they were asked for.

*Budget.* `--programs` evaluations a search, as the search itself counts them: trained programs, and
further samples of good ones where the config takes any. A rule is handed out at a quarter, a half,
three quarters and the whole of it. Processor time is that of the search's process, with its finals;
the model's own is elsewhere, and its tokens are reported.

*Measure.* That of `search_power.py`: fresh seeds of the proxies and unseen tasks, paired with
mutation by the search's seed, 95% intervals by Student's t. At equal processor time each search
counts with what it had handed out within the least time that any arm took for the whole (mean over
its searches); a search that had handed out nothing by then counts with the first that it did, and
is counted as late. At least three searches an arm; fewer say nothing, and are marked as a trial.

Finished searches are not run again, and answers are never asked for twice; other settings under the
same `--runs` are refused. Writes `results/llm_operator.json`, with the model's name, but not where
nothing but a trial was made.
"""

import argparse
import contextlib
import hashlib
import http.server
import json
import socketserver
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import grammar_samples
import intervals
import numpy as np
import power_scores
import search_power
from search_power import Scored, Search

from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution import founders, suggestions
from veldt.search.storage import llm_figures
from veldt.search.storage.store import Store

RESULTS: Final = Path(__file__).parent / "results" / "llm_operator.json"
REFERENCE: Final = "mutation"
FRACTIONS: Final = (0.25, 0.5, 0.75, 1.0)
NUM_PROGRAMS: Final = 2  # Of one answer.
LEAST_SEARCHES: Final = 3


def arms(args: argparse.Namespace, window: int) -> dict[str, tuple[str, ...]]:
    """Return the overrides of each arm.

    Args:
      args: Arguments of the command line.
      window: Window of the search, the shortest lead: an arm begins with blind mutation.
    """
    stand_in = {"name": "grammar", "url": f"http://127.0.0.1:{args.port}/v1"}
    found: dict[str, tuple[str, ...]] = {
        REFERENCE: (),
        "best_of_n": ("parents=initial", "tournament_size=1", "mutation.repeat=0"),
        "grammar": (_llm(stand_in, share=1.0, lead=window),),
    }
    if args.url is not None:
        model = {"name": args.model, "url": args.url, "grammar": args.grammar}
        model |= {"max_tokens": args.max_tokens}
        if args.key_env is not None:
            model["key_env"] = args.key_env
        limits = {"about": args.about, "max_tokens_total": args.max_tokens_total}
        limits |= {"timeout_s": args.timeout_s, "patience_s": 2 * args.timeout_s, "lead": window}
        found["model"] = (_llm(model, share=1.0, **limits),)
        found["mixed"] = (_llm(model, share=0.5, choice="bandit", **limits),)
    return found


def _llm(model: Mapping[str, Any], **settings: Any) -> str:
    return "llm=" + json.dumps({"models": [model], "num_programs": NUM_PROGRAMS, **settings})


@final
class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A server of a fixed port, whose threads end with it."""

    daemon_threads = True


@contextlib.contextmanager
def stand_in_model(grammar: str, port: int) -> Iterator[None]:
    """Serve a "model" on loopback that draws random programs from a grammar, while a block runs.

    The answer is a function of the prompt.
    """
    drawn = grammar_samples.Grammar(grammar)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            prompt = json.dumps(json.loads(body)["messages"])
            rng = np.random.default_rng(list(hashlib.sha256(prompt.encode()).digest()))
            text = "".join(drawn.sample(rng, "block") for _ in range(NUM_PROGRAMS))
            message = {"role": "assistant", "content": text}
            reply = {
                "choices": [{"message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 0, "completion_tokens": 0},
            }
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with _Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def models_part(search: Search) -> dict[str, int]:
    """Return the tokens of a search's model, and how many of the trained programs are its own."""
    if not (search.run_dir / "handed_out.json").exists() or search.config().llm is None:
        return {"tokens": 0, "calls": 0, "models_trained": 0, "models_better": 0}
    with Store.open(search.run_dir, read_only=True) as store:
        *models, _ = llm_figures.read(store)
    return {
        "tokens": sum(one.num_tokens for one in models),
        "calls": sum(one.num_calls for one in models),
        "models_trained": sum(one.num_trained for one in models),
        "models_better": sum(one.num_better for one in models),
    }


def at_equal_time(scored: Scored, baselines: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each arm had handed out within the time of the quickest, less AdamW."""
    adamw = statistics.mean(baselines["adamw"]["fresh"])
    seconds = min(
        statistics.mean(stages[-1]["processor_s"] for stages in of_seed.values())
        for of_seed in scored.values()
    )
    found: dict[str, Any] = {}
    for arm, of_seed in scored.items():
        values, late = [], 0
        for stages in of_seed.values():
            within = [stage for stage in stages if stage["processor_s"] <= seconds]
            late += not within
            values.append(statistics.mean((within or stages[:1])[-1]["fresh"]) - adamw)
        found[arm] = {"less_adamw": intervals.of_mean(values), "each": values, "late": late}
    return {"seconds": seconds, "arms": found}


def print_more(summary: Mapping[str, Any]) -> None:
    """Print what the tables of `search_power` lack."""
    equal = summary["at_equal_time"]
    print(f"\nless tuned AdamW on fresh seeds, within {equal['seconds']:.0f} processor-seconds")
    for arm, row in equal["arms"].items():
        late = f"   {row['late']} late" if row["late"] else ""
        print(f"{arm:18}{intervals.text(row['less_adamw'])}{late}")
    print("\nmodels, by search: calls; tokens; of the trained programs theirs; better than parents")
    for arm, rows in summary["models"].items():
        cells = (
            f"{one['calls']:,}; {one['tokens']:,}; {one['models_trained']:,}; "
            f"{one['models_better']:,}"
            for one in rows.values()
        )
        print(f"{arm:18}{'   '.join(cells)}")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--base", default="quickstart")
    parser.add_argument("--common", nargs="+", default=[], metavar="key=value")
    parser.add_argument("--only", nargs="+", help="of all arms")
    parser.add_argument("--searches", type=int, default=LEAST_SEARCHES)
    parser.add_argument("--programs", type=int, default=800)
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time, a core each")
    parser.add_argument("--unseen", nargs="+", default=search_power.UNSEEN, metavar="task:steps")
    parser.add_argument("--url", help="base of an endpoint that speaks OpenAI's chat API")
    parser.add_argument("--model", help="the model's name there")
    parser.add_argument("--key-env", help="environment variable with the key")
    parser.add_argument("--grammar", choices=("none", "llama_cpp", "vllm"), default="none")
    parser.add_argument("--max-tokens", type=int, default=2000, help="of one answer")
    parser.add_argument("--max-tokens-total", type=int, help="of one search")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="of one request")
    parser.add_argument("--about", default="", help="words about the tasks for the model")
    parser.add_argument("--port", type=int, default=8471, help="of the stand-in on loopback")
    args = parser.parse_args(words)
    if (args.url is None) != (args.model is None):
        parser.error("--url and --model go together")
    window = search_power.load(args.base, args.common).window
    args.arms = arms(args, window)
    if unknown := set(args.only or ()) - set(args.arms):
        parser.error(f"no arm {', '.join(sorted(unknown))}; there are {', '.join(args.arms)}")
    for word in args.common:
        name = word.partition("=")[0].partition(".")[0].replace("-", "_")
        if name in (*search_power.EQUAL[1:], "llm"):
            parser.error(f"{word}: arms are compared at equal budgets and finals")
    if args.only:
        args.arms = {name: args.arms[name] for name in args.only}
    args.unseen = [ProxyConfig(t, int(n)) for t, n in (one.split(":") for one in args.unseen)]
    return args


def grammar_of(config: SearchConfig) -> str:
    """Return the grammar of a search's programs."""
    return suggestions.limits_of(config, founders.load(config)).grammar()


def main() -> None:
    """Search, score, print and, if it is no trial, write `results/llm_operator.json`."""
    args = parse()
    common = tuple(args.common)
    searches = [
        Search(
            arm,
            seed,
            args.base,
            (*common, *own),
            args.programs,
            args.runs,
            "max_evaluations",
            FRACTIONS,
        )
        for seed in range(args.searches)
        for arm, own in args.arms.items()
    ]
    base = search_power.load(args.base, common)
    with stand_in_model(grammar_of(base), args.port):
        scored, baselines = search_power.measure(searches, base, args.unseen, jobs=args.jobs)
    summary = search_power.summarise(scored, baselines, REFERENCE)
    models: dict[str, dict[int, dict[str, int]]] = {arm: {} for arm in args.arms}
    for one in searches:
        models[one.arm][one.seed] = models_part(one)
    more = {"at_equal_time": at_equal_time(scored, baselines), "models": models}
    search_power.print_tables(summary, REFERENCE)
    print_more(more)
    if args.searches < LEAST_SEARCHES:
        print(f"\na trial: fewer than {LEAST_SEARCHES} searches an arm, nothing written")
        return
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    content[args.model or "without a model"] = {
        "command": f"python benchmarks/llm_operator.py --runs DIR --programs {args.programs}",
        "base": args.base,
        "common": list(common),
        "overrides": {arm: list(own) for arm, own in args.arms.items()},
        "programs": args.programs,
        "tasks": search_power.tasks_of(base, args.unseen),
        "baselines": {name: baselines[name] for name in power_scores.BASELINES},
        **summary,
        **more,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
