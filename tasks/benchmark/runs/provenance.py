"""What a result was made with: versions, device, date."""

import datetime
import platform
from importlib import metadata

import jax


def versions() -> dict[str, str]:
    """What a result was made with."""
    packages = {name: metadata.version(name) for name in ("veldt", "jax", "optax", "flax")}
    device = jax.devices()[0]
    return {
        **packages,
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
