"""The versions of what a run's figures may depend on."""

import importlib.metadata
import platform


def versions() -> dict[str, str]:
    """Return the versions of Python, veldt, JAX and Optax, by name."""
    found = {"python": platform.python_version()}
    for package in ("veldt", "jax", "jaxlib", "optax"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # veldt, run from a checkout's own folder
            found[package] = "not installed"
    return found
