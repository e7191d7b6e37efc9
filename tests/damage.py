"""Files as bad disks and broken copies leave them: one byte is another, or the end is missing."""

import random
from collections.abc import Iterator


def damaged(content: bytes, num_flips: int, *, num_cuts: int | None = None) -> Iterator[bytes]:
    """Yields versions of a file, the same ones every time.

    Args:
      content: the file's.
      num_flips: how many with one byte that is another.
      num_cuts: how many that end too early; a tenth of the flips unless told.
    """
    rng = random.Random(0)
    for _ in range(num_flips):
        broken = bytearray(content)
        broken[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        yield bytes(broken)
    for _ in range(max(num_flips // 10, 3) if num_cuts is None else num_cuts):
        yield content[: rng.randrange(len(content))]
