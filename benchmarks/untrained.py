"""The weights that meta-training starts from, to compare with trained ones.

python benchmarks/untrained.py celo2 runs/celo2_start.npz
veldt evaluate celo2 runs/celo2_start.npz --suite small
"""

import dataclasses
import sys
from pathlib import Path

import jax

from veldt.learned_opt import shipped, weight_files


def main(source: str, path: Path) -> None:
    """Write weights of the same architecture and fields, drawn and not trained."""
    found = shipped.load(source)
    drawn = found.architecture.init(jax.random.key(0))
    record = {**found.record, "untrained": True}
    weight_files.write(path, dataclasses.replace(found, meta_params=drawn, record=record))
    print(f"wrote {path}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
