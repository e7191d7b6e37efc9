"""Digests of what is written, kept beside it, so that damage is found when it is read.

They are no secrets: against bad disks and broken copies, not against forgery. Files of older
versions have none and are read as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

KEY: Final = "digest"
"""The entry of a JSON file that holds the digest of its others."""


def of(content: bytes) -> str:
    """Return the digest of a file's content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def signed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain JSON values with the digest of them all."""
    return {**data, KEY: _of_values(data)}


def check(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `signed` was given.

    Raises:
      ValueError: It is no mapping, or has a digest of something else.
    """
    if not isinstance(data, Mapping):
        raise ValueError("it is no mapping")
    found = {key: value for key, value in data.items() if key != KEY}
    if KEY in data and data[KEY] != _of_values(found):
        raise ValueError("it was changed after it was written (its digest is wrong)")
    return found


def _of_values(data: Mapping[str, Any]) -> str:
    return of(json.dumps(data, sort_keys=True).encode())
