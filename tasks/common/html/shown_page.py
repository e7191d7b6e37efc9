"""A page that shows itself in a notebook."""

import dataclasses
from pathlib import Path
from typing import Final, final

from veldt.tasks.common.disk import atomic_files
from veldt.tasks.common.html.markup import tag

PLOT_HEIGHT: Final = 560
PAGE_HEIGHT: Final = 760


@final
@dataclasses.dataclass(frozen=True)
class ShownPage:
    """A page of HTML, as reports and plots are.

    A notebook shows it in a frame of its own, since its style must not change the notebook's, nor
    the other way round.

    Attributes:
      html: Text of the page.
      height: Height of the frame in a notebook, in pixels.
      path: File that holds it; None if there is none.
    """

    html: str
    height: int = PAGE_HEIGHT
    path: Path | None = None

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, and return its path.

        Raises:
          FileError: It cannot be written.
        """
        atomic_files.make_folder(Path(path).parent)
        atomic_files.write_bytes(Path(path), self.html.encode(errors="replace"))
        return Path(path)

    def __repr__(self) -> str:
        where = "" if self.path is None else f" in {self.path}"
        size = f"{len(self.html) // 1024:,} KB"
        return f"<page of {size}{where}; a notebook shows it, save(path) writes it>"

    def _repr_html_(self) -> str:
        return tag(
            "iframe",
            srcdoc=self.html,
            sandbox="",
            width="100%",
            height=self.height,
            style="border: 0",
        )
