"""Digests of files, stored beside their content, so that damage is found when it is read.

They protect against bad disks and broken copies, not against forgery. Files of older
versions have none and are read as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

KEY: Final = "digest"
"""The entry of a JSON file with the digest of the other entries."""


def of(content: bytes) -> str:
    """Return the digest of a file's content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def signed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain JSON values with the digest of them all."""
    return {**data, KEY: _of_values(data)}


def check(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that were given to `signed`.

    Raises:
      ValueError: It is no mapping, or its digest is wrong.
    """
    if not isinstance(data, Mapping):
        raise ValueError("it is no mapping")
    found = {key: value for key, value in data.items() if key != KEY}
    if KEY in data and data[KEY] != _of_values(found):
        raise ValueError("it was changed after it was written (its digest is wrong)")
    return found


def _of_values(data: Mapping[str, Any]) -> str:
    return of(json.dumps(data, sort_keys=True).encode())
