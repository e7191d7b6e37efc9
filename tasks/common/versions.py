"""The versions of software that a run's figures may depend on."""

import importlib.metadata
import platform
import sys


def versions() -> dict[str, str]:
    """Return the versions of Python, veldt, JAX and Optax, by name."""
    # The running code, not the installed package: a checkout changes without being installed again.
    # The package is loaded, or this module would not be.
    running = str(vars(sys.modules["veldt"])["__version__"])
    packages = ("jax", "jaxlib", "optax")
    return {
        "python": platform.python_version(),
        "veldt": running,
        **{package: importlib.metadata.version(package) for package in packages},
    }
