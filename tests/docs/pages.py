"""The README and the pages of the site, and what is in them."""

import re
from pathlib import Path

from _generate import site

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PACKAGE = DOCS / "package.md"
GENERATED = {DOCS / name for name in site.PAGES}
WRITTEN = sorted(set(DOCS.glob("[!_]*.md")) | set(DOCS.glob("[!_]*/*.md")) - GENERATED)
WRITTEN.remove(PACKAGE)
ALL = [README, PACKAGE, *WRITTEN]
"""The pages that people write; the generated ones may not be there."""


def name(page: Path) -> str:
    """The page's path, for the ids of tests."""
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[str]:
    """The page's fenced blocks in any of some languages; "" is none."""
    fences = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text(page), re.DOTALL | re.MULTILINE)
    return [body for _, language, body in fences if language in languages]


def prose(page: Path) -> str:
    """The page's text without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text(page), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The `veldt ...` lines of the page's blocks."""
    lines = [line for block in blocks(page, "", "console") for line in block.splitlines()]
    return [line for line in lines if line.startswith("veldt ")]
