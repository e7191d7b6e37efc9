"""The provenance of a result: versions, device, date."""

import datetime
import platform
from importlib import metadata

import jax


def versions() -> dict[str, str]:
    """Return versions, device and date, by name."""
    packages = {name: metadata.version(name) for name in ("veldt", "jax", "optax", "flax")}
    device = jax.devices()[0]
    return {
        **packages,
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
