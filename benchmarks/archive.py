"""Makes the archive of a suite: every baseline's runs, and Adam's curves for the envelope.

    python benchmarks/archive.py small              # about two hours on two cores; stop and go on
    python benchmarks/archive.py smoke --pool.backend ray --pool.num-workers 16

Finished runs are kept in `runs/archive/SUITE`, so that it can be stopped at any time and goes on
where it was; at the end all of them are packed into `tasks/benchmark/archives/SUITE.npz`, which is
shipped. Only where every run of a task is there does the task get into the archive.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from veldt import config as config_lib
from veldt.tasks import suites
from veldt.tasks.benchmark import archive as archive_lib
from veldt.tasks.benchmark import baselines, display, evaluate

RUNS = Path("runs/archive")


def main(words: Sequence[str]) -> None:
    """Run what is missing, then pack."""
    config = config_lib.make_config(evaluate.EvaluateConfig, words[1:])
    suite = suites.load_suite(words[0])
    began = time.monotonic()
    watcher = display.make_watcher()
    try:
        archive = archive_lib.make_archive(
            suite, baselines.BASELINES.values(), config.pool, RUNS / suite.name / "sweeps", watcher
        )
    finally:
        watcher.close()
    path = archive_lib.FOLDER / f"{suite.name}.npz"
    archive_lib.write_archive(path, archive)
    work_s = sum(r.sweep.compile_s + r.sweep.run_s for r in archive.records)
    compile_s = sum(r.sweep.compile_s for r in archive.records)
    print(
        f"wrote {path}: {len(archive.fingerprints)} tasks, {len(archive.records)} curves, "
        f"{path.stat().st_size / 2**20:.1f} MiB; this sitting took "
        f"{(time.monotonic() - began) / 60:.0f} min; in all {work_s / 3600:.1f} worker-hours, "
        f"{compile_s / work_s:.0%} of them compiling"
    )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"which suite? {', '.join(suites.SUITES)}")
    main(sys.argv[1:])
