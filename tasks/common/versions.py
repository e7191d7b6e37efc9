"""The versions of what a run's figures may depend on."""

import importlib.metadata
import platform
import sys


def versions() -> dict[str, str]:
    """Return the versions of Python, veldt, JAX and Optax, by name."""
    # What runs, and not what was installed: a checkout moves on without being installed again. The
    # package is loaded, or this module would not be.
    running = str(vars(sys.modules["veldt"])["__version__"])
    packages = ("jax", "jaxlib", "optax")
    return {
        "python": platform.python_version(),
        "veldt": running,
        **{package: importlib.metadata.version(package) for package in packages},
    }
