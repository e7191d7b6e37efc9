"""The four long commands on a cluster of several hosts, with everything going wrong at random.

    python benchmarks/soak.py [--faults 100] [--seed 0] [--commands search,tune] [--pause 3.0]

A head and three nodes run on this machine, each in a network namespace with an address and a link
of its own where the machine allows it, else as raylets on one address; the reason is printed. A
command (search, meta-train, evaluate, tune) runs on them in a process of its own. Meanwhile, again
and again, after a random pause, one of the faults of `soak_faults` happens. A driver that has died
of one is started again and resumes.

Whenever the command has come to its end, what it has made is compared with what the same command
has made undisturbed, in one process with two threads (`soak_commands` says how), and it is begun
anew, until the faults of the round are used up. Then comes the next round, of another command. A
search's store is also checked after every death of its driver.

Finished rounds are kept in `--state`: the same command line goes on after them. Exit code 1, and no
result file, if anything differs.
"""

import argparse
import collections
import dataclasses
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, final

import soak_clusters
import soak_commands
import soak_driver
import soak_faults
import soak_network
import soak_plan

RESULTS: Final = Path(__file__).parent / "results" / "soak.json"
STATE: Final = Path(__file__).resolve().parents[1] / ".cache" / "soak.json"
WORKERS: Final = 3
ALONE_S: Final = 1800.0
SESSION_S: Final = 900.0


@final
class Soak:
    """The rounds and what came of them."""

    def __init__(self, args: argparse.Namespace, folder: Path, *, links: bool):
        """Prepare; the cluster is started when a command needs it.

        Args:
          args: Command line.
          folder: Folder for runs and for the hosts' files.
          links: Whether the hosts have links that can fail.
        """
        self._args = args
        self._folder = folder
        self._links = links
        self._mark = secrets.token_hex(8)
        os.environ[soak_faults.MARK] = self._mark
        self._alone: dict[tuple[str, int], Path] = {}
        self._num_runs = 0
        self._cluster: soak_clusters.Cluster | None = None
        self.about = self.slowed_by = ""

    def cluster(self) -> soak_clusters.Cluster:
        """Return the present cluster, a new one if there is none."""
        if self._cluster is None:
            self._cluster = soak_clusters.make(self._args.nodes, self._folder, links=self._links)
            self.about = self._cluster.about
        return self._cluster

    def close(self) -> None:
        """End the cluster; the next command that needs one gets a new one."""
        if self._cluster is not None:
            self.slowed_by = getattr(self._cluster, "slowed_by", "") or self.slowed_by
            self._cluster.close()
            self._cluster = None

    def strike(self, each: soak_plan.Round) -> dict[str, Any]:
        """Run a round, and return its record."""
        size = (self._args.evaluations,) if each.command == "search" else ()
        command = soak_commands.COMMANDS[each.command](*size)
        rng = random.Random(f"{self._args.seed}/{each}")
        todo, work = list(each.kinds), collections.Counter[str]()
        runs = checks = 0
        began = time.monotonic()
        while todo:
            self._num_runs += 1
            place = self._folder / f"{each.command}-{self._num_runs}"
            orders = self._folder / f"orders-{self._num_runs}"
            place.mkdir()
            orders.mkdir()
            words = command.words(self._folder, each.variant, place)
            sessions = 0
            while not self._session(command, words, orders, sessions, rng, todo):
                command.check(place)
                checks += 1
                sessions += 1
            found = command.differences(place, self._left_alone(command, each.variant))
            if found:
                text = "\n".join(found)
                raise SystemExit(f"{place} differs from one left alone:\n{text}")
            runs += 1
            work["sessions"] += sessions + 1
            work.update(_work(orders))
            print(f"     {each.command}: as undisturbed, after {sessions + 1} sessions", flush=True)
        return {
            "command": each.command,
            "variant": each.variant,
            "faults": dict(sorted(collections.Counter(each.kinds).items())),
            "runs_compared": runs,
            "checks": checks,
            "work": {name: round(number, 1) for name, number in work.items()},
            "hosts": self.about,
            "minutes": round((time.monotonic() - began) / 60, 2),
        }

    def _session(
        self,
        command: soak_commands.Command,
        words: Sequence[str],
        orders: Path,
        number: int,
        rng: random.Random,
        todo: list[str],
    ) -> bool:
        """Run the command until a fault or its end; return whether it has come to its end."""
        said = orders / f"said-{number}.txt"
        with open(said, "ab") as log:
            driver = subprocess.Popen(self._on(command, words, orders), stdout=log, stderr=log)
        try:
            return self._until_end(command, driver, orders, said, rng, todo)
        except (soak_faults.Unexpected, subprocess.TimeoutExpired) as error:
            raise SystemExit(f"{command.name}: {error}\n{_end_of(said)}") from error
        finally:
            driver.kill()
            driver.wait()

    def _on(self, command: soak_commands.Command, words: Sequence[str], orders: Path) -> list[str]:
        """Return the command line of a driver on the cluster."""
        pool = [
            *("--pool.backend", "ray", "--pool.num-workers", str(WORKERS)),
            *("--pool.ray.address", self.cluster().address),
            # One job may be hit several times here by chance, without being at fault.
            *("--pool.max-tries", "8", "--pool.ray.memory-limit-gib", "1.5"),
        ]
        if command.name == "search":  # The others have no limit, as is the default.
            pool += ["--pool.timeout-s", "5"]
        return self.cluster().on_head(_line(orders, [*words, *pool]))

    def _until_end(
        self,
        command: soak_commands.Command,
        driver: "subprocess.Popen[bytes]",
        orders: Path,
        said: Path,
        rng: random.Random,
        todo: list[str],
    ) -> bool:
        faults = soak_faults.Faults(rng, self._mark, self.cluster())
        struck = time.monotonic()
        while True:
            if time.monotonic() - struck > SESSION_S:
                raise soak_faults.Unexpected(f"no end, and nothing to hit, for {SESSION_S:.0f} s")
            pause = rng.uniform(0.2, 2.0) * self._args.pause * command.pause
            if soak_faults.rest(driver, pause):
                if driver.returncode:
                    text = _end_of(said)
                    raise SystemExit(f"{command.name} failed with {driver.returncode}:\n{text}")
                return True
            if self._cluster is not None:
                self._cluster.tend()
            if not todo or not faults.commit(todo[-1], driver, orders, said):
                continue  # There was nothing to hit; again after the pause.
            kind, struck = todo.pop(), time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {command.name}: {kind}", flush=True)
            if kind == "head lost":
                self.close()
            if kind in soak_faults.ENDING and driver.poll() is not None:
                return driver.returncode == 0

    def _left_alone(self, command: soak_commands.Command, variant: int) -> Path:
        """Return a run that nothing has disturbed."""
        place = self._folder / f"{command.name}-alone-{variant}"
        if (command.name, variant) not in self._alone:
            orders = self._folder / f"orders-alone-{command.name}-{variant}"
            orders.mkdir()
            pool = ["--pool.backend", "inline", "--pool.num-workers", "2"]
            words = command.words(self._folder, variant, place)
            line = _line(orders, [*words, *pool])
            done = subprocess.run(
                line, capture_output=True, text=True, timeout=ALONE_S, check=False
            )
            if done.returncode:
                raise SystemExit(f"{command.name} failed, left alone:\n{done.stderr[-3000:]}")
            self._alone[command.name, variant] = place
        return place


def _line(orders: Path, words: Sequence[str]) -> list[str]:
    return [sys.executable, str(Path(soak_driver.__file__).resolve()), str(orders), *words]


def _end_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-3000:]


def _work(orders: Path) -> collections.Counter[str]:
    """Return the sums over the pools of a run; those of killed drivers have left none."""
    found = collections.Counter[str]()
    if (orders / soak_driver.WORK).exists():
        for line in (orders / soak_driver.WORK).read_text().splitlines():
            found.update({k: v for k, v in json.loads(line).items() if k != "backend"})
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--faults", type=int, default=100, help="number of faults, of all kinds")
    parser.add_argument("--each", action="store_true", help="one of each kind instead")
    parser.add_argument(
        "--commands", default=",".join(soak_plan.SHARES), help="those that are struck"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=3.0, help="mean seconds between faults")
    parser.add_argument("--evaluations", type=int, default=1500, help="evaluations of one search")
    parser.add_argument("--nodes", type=int, default=3, help="number of nodes beside the head")
    parser.add_argument("--one-address", action="store_true", help="raylets, without namespaces")
    parser.add_argument("--state", type=Path, default=STATE, help="file of finished rounds")
    parser.add_argument("--out", type=Path, help="file of the result (benchmarks/results)")
    return parser.parse_args()


def main() -> None:
    """Soak, print, write."""
    args = _arguments()
    # So that hosts are taken down also after a SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    names = args.commands.split(",")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["JAX_PLATFORMS"] = "cpu"
    root = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    why = "--one-address was given" if args.one_address else soak_network.missing()
    if why:
        print(f"no hosts in network namespaces, but raylets on one address: {why}", flush=True)
    num_faults = None if args.each else args.faults
    rounds = soak_plan.plan(random.Random(args.seed), names, num_faults, has_links=not why)
    settings = {"seed": args.seed, "rounds": [dataclasses.asdict(each) for each in rounds]}
    settings = json.loads(json.dumps(settings))
    done = soak_plan.read_state(args.state, settings)
    # Sockets have short paths; a folder of one's own is private.
    with tempfile.TemporaryDirectory(prefix="vs", dir="/tmp") as folder:
        soak = Soak(args, Path(folder), links=not why)
        try:
            for each in rounds[len(done) :]:
                done.append(soak.strike(each))
                args.state.parent.mkdir(parents=True, exist_ok=True)
                args.state.write_text(json.dumps({"settings": settings, "rounds": done}))
        finally:
            soak.close()
    args.state.unlink(missing_ok=True)
    result = {
        "command": f"python benchmarks/soak.py --faults {args.faults} --seed {args.seed}",
        "nodes": f"{next((r['hosts'] for r in done if r['hosts']), '')}; {WORKERS} workers",
        "slowed_by": soak.slowed_by,
        **soak_plan.summary(done),
        "differed": 0,
        "rounds": done,
        "minutes": round(sum(each["minutes"] for each in done), 1),
    }
    print(json.dumps(result, indent=2))
    out = args.out or (RESULTS if not args.each and len(names) == len(soak_plan.SHARES) else None)
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
