"""Files as bad disks and broken copies leave them: one byte is changed, or the end is missing."""

import random
from collections.abc import Iterator


def damaged(content: bytes, num_flips: int, *, num_cuts: int | None = None) -> Iterator[bytes]:
    """Yield versions of a file, the same ones every time.

    Args:
      content: Content of the file.
      num_flips: Number of copies with one changed byte.
      num_cuts: Number of copies that end too early; by default a tenth of the flips.
    """
    rng = random.Random(0)
    for _ in range(num_flips):
        broken = bytearray(content)
        broken[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        yield bytes(broken)
    for _ in range(max(num_flips // 10, 3) if num_cuts is None else num_cuts):
        yield content[: rng.randrange(len(content))]
