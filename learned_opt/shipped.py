"""Where weights come from: those that veldt ships, a weight file, a meta-training run's directory.

Shipped weights are the files in `weights/`, each under its own name. Nothing is downloaded.
"""

import os
from pathlib import Path
from typing import Any, Final

import optax

from veldt.learned_opt import base, errors, weight_files
from veldt.tasks.common import spelling
from veldt.tasks.common.disk import run_directory

FOLDER: Final = Path(__file__).parent / "weights"
SUFFIX: Final = ".npz"
RUN_FILE: Final = "weights.npz"
"""What a meta-training run writes its weights to, in its directory."""


def names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the shipped weights, sorted."""
    return sorted(path.stem for path in folder.glob("*" + SUFFIX))


def find(source: str | Path, folder: Path = FOLDER) -> Path:
    """Return the weight file of a source.

    Args:
      source: A shipped name, the path of a weight file, or a meta-training run's directory.
      folder: Where the shipped ones are.

    Raises:
      UnknownWeightsError: There is none.
    """
    known = names(folder)
    if source in known:
        return folder / f"{source}{SUFFIX}"
    path = Path(source)
    # `os.path`, because pathlib's own tests raise on names that the file system cannot have.
    if os.path.isdir(path):
        if not os.path.isfile(path / RUN_FILE):
            raise errors.UnknownWeightsError.of(
                path,
                f"a directory without {RUN_FILE}, which a meta-training writes; "
                f"{run_directory.describe(path)}",
            )
        return path / RUN_FILE
    if os.path.isfile(path):
        return path
    if path.suffix == SUFFIX or len(path.parts) > 1:
        raise errors.UnknownWeightsError.of(path, "there is no such weight file")
    near = spelling.did_you_mean(str(source), known)
    raise errors.UnknownWeightsError(
        f"there are no weights {str(source)!r}{near}. Shipped: {', '.join(known) or 'none'}; or "
        "give the path of a weight file (.npz) or of a meta-training run's directory."
    )


def name_of(source: str | Path) -> str:
    """Return what to call a source's weights in tables: the file's or the directory's name."""
    path = Path(source)
    return path.resolve().name if os.path.isdir(path) else path.stem


def load(source: str | Path) -> weight_files.Weights:
    """Return the weights of a source, as for `find`.

    Raises:
      WeightsError: There are none, or the file is damaged or something else.
    """
    return weight_files.read(find(source))


def learned_optimizer(
    source: str | Path, num_steps: base.NumSteps = None, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """Return a learned optimizer with its weights as an Optax transform.

        tx = veldt.learned_optimizer("celo2", learning_rate=1e-3)
        updates, state = tx.update(grads, state, params, value=loss)

    The loss goes in by Optax's own `value=`; architectures that do not read it do without.

    Args:
      source: A shipped name, the path of a weight file, or a meta-training run's directory.
      num_steps: The length of the training run; VeLO and Celo need it.
      **options: Further options of the architecture, such as Celo2's `learning_rate`.

    Raises:
      WeightsError: There are no such weights, or the file is damaged or something else.
      UnknownOptionError: The architecture takes no such option.
      MissingInputError: It needs the number of steps.
    """
    return load(source).as_optax(num_steps, **options)
