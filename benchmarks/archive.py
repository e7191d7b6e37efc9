"""Make the archive of a suite: every baseline's runs, and Adam's curves for the envelope.

    python benchmarks/archive.py small              # about two hours on two cores
    python benchmarks/archive.py smoke --pool.backend ray --pool.num-workers 16
    python benchmarks/archive.py pack small         # the runs that are finished so far

Finished runs are kept in `runs/archive/SUITE`, so that it can be stopped at any time and continued;
at the end all of them are packed into `tasks/benchmark/archives/SUITE.npz`, which is
shipped. Runs in that file are not repeated, so that a new baseline costs its own runs
only. An optimizer is compared with once it is there on every task of a suite.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from veldt import config as config_lib
from veldt.tasks import registry, suites, task_fingerprint
from veldt.tasks.benchmark import archive as archive_lib
from veldt.tasks.benchmark import evaluate
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.runs.cache import RunCache
from veldt.tasks.common.progress import choose

RUNS = Path("runs/archive")
CANDIDATES = tuple(baselines.BASELINES.values())


def main(words: Sequence[str]) -> None:
    """Run what is missing, then pack; or only pack."""
    only_pack, words = words[0] == "pack", words[words[0] == "pack" :]
    suite = suites.load_suite(words[0])
    cache = RunCache(RUNS / suite.name / evaluate.SWEEPS_FOLDER)
    began = time.monotonic()
    if only_pack:
        tasks = {entry.task: registry.load_task(entry.task) for entry in suite.tasks}
        fingerprints = {name: task_fingerprint.fingerprint(task) for name, task in tasks.items()}
        archive = archive_lib.gather(suite, CANDIDATES, cache, fingerprints)
    else:
        config = config_lib.make_config(evaluate.EvaluateConfig, words[1:])
        watcher = choose.make_display()
        try:
            archive = archive_lib.run_baselines(
                suite, CANDIDATES, config.pool, cache, watcher, archive_lib.shipped()
            )
        finally:
            watcher.close()
    path = archive_lib.FOLDER / f"{suite.name}.npz"
    archive_lib.write_archive(path, archive)
    names = sorted({record.name for record in archive.records})
    work_s = sum(r.sweep.compile_s + r.sweep.run_s for r in archive.records)
    compile_s = sum(r.sweep.compile_s for r in archive.records)
    print(
        f"wrote {path.name}, {path.stat().st_size / 2**20:.1f} MiB: {len(archive.tasks)} "
        f"tasks, {len(archive.records)} curves of {', '.join(names)}; this session took "
        f"{(time.monotonic() - began) / 60:.0f} min; in all {work_s / 3600:.1f} worker-hours, "
        f"{compile_s / work_s:.0%} of them compiling"
    )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"which suite? {', '.join(suites.SUITES)}")
    main(sys.argv[1:])
