"""Options of XLA for compiling training loops on the device at hand.

On the CPU, LLVM's level 1 compiles a loop in a third to two thirds of the time of its default
level, and the loops run as fast or faster, to the same bits (measured; level 0 runs four times
slower). A GPU's code is left as XLA would have it.

What has been compiled is kept on disk: for the next command, and for the other workers of a node.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import jax

from veldt.tasks.common import errors, private_folder

_MAX_BYTES = 1 << 30
_WAIT_S = 600.0  # For the first of a node; who has waited so long compiles too.


def options() -> dict[str, Any]:
    """Return `compiler_options` for a training loop; JAX is asked for its device."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def jit(function: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    """Return `jax.jit` with the options, which may be used before JAX has found its devices.

    Called with tracers, it is a part of the program around it, whose options hold: JAX takes none
    for a part.

    Args:
      function: Function to compile.
      **kwargs: Arguments of `jax.jit`.
    """

    @functools.cache
    def compiled() -> Any:
        return jax.jit(function, compiler_options=options(), **kwargs)

    part = jax.jit(function, **kwargs)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
        return part(*args) if traced else compiled()(*args)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call


def keep_compiled() -> None:
    """Make JAX keep what this process compiles, so that the next one need not: for commands.

    In the user's cache (`$XDG_CACHE_HOME/veldt` or `~/.cache/veldt`, at most 1 GiB) and never in a
    run's directory: the files are machine code, and a run may come from a stranger. If JAX has a
    cache already, that one is used; if none can be written, nothing is kept.

    Raises:
      TaskError: Someone else could change the files in it.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(home) / "veldt" / "compiled"
    try:
        private_folder.make(path, "set XDG_CACHE_HOME to a folder of yours")
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)


def keep_compiled_for(session: str) -> None:
    """Make a worker keep what it compiles for later ones, while the cluster's session lasts.

    Args:
      session: Name of the cluster's session.

    Raises:
      TaskError: Someone else could change the files in the folder.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    if not session.replace("_", "").replace("-", "").isalnum():
        return  # Not a name of a folder.
    path = private_folder.temporary() / "compiled" / session
    try:
        private_folder.make(path, "set TMPDIR to a folder of yours")
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@contextlib.contextmanager
def once_a_node(name: str) -> Iterator[None]:
    """Let the first process of this machine compile, and the others load what it compiled.

    Processes that enter the block while another is in it wait until that one is through, then run
    theirs side by side. If nothing compiled is kept, nobody waits.

    Args:
      name: Name of what the processes have in common, made of letters and digits.
    """
    with contextlib.ExitStack() as stack:
        if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
            with contextlib.suppress(errors.TaskError, OSError, NotImplementedError):
                # Not in the cache's own folder, which may be a bucket or shared by machines.
                lock = filelock.FileLock(private_folder.temporary() / f"compiling-{name}")
                try:
                    stack.enter_context(lock.acquire(blocking=False))
                except filelock.Timeout:
                    with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=_WAIT_S):
                        pass
        yield
