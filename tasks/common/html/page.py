"""A page with what every page has: head, style, sections, the resolved config, the file.

The page refers to nothing outside itself, and its content security policy would not let it: no
scripts, no fonts, no pictures from anywhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from veldt.tasks.common.config import codec
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.common.html import style
from veldt.tasks.common.html.markup import Html, definitions, escape, join, tag

FILE: Final = "report.html"
"""The page's name in a run directory."""

_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(title: str, *sections: Html, rules: str = "") -> str:
    """Return a whole page.

    Args:
      title: Title; escaped.
      *sections: Body of the page.
      rules: Style rules of this page, after those of every page.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style.COLOURS}{style.PAGE}{style.FIGURES}{rules}</style>
</head>
<body>
<main>
{join(sections, chr(10))}
</main>
</body>
</html>
"""


def section(title: str, *content: object) -> Html:
    """Return a section with its heading."""
    return tag("section", tag("h2", title), *content)


def configuration(config: object, facts: Mapping[str, object]) -> Html:
    """Return the section that ends a run's report: the resolved config and versions.

    Args:
      config: A dataclass, or plain values.
      facts: Versions and the like, by name.
    """
    text = tag("pre", tag("code", codec.dump(config)))
    return section(
        "Configuration",
        tag("details", tag("summary", "The resolved config"), text),
        definitions(facts) if facts else Html(),
    )


def write(text: str, run_dir: Path, output: Path | None = None) -> Path:
    """Write a page whole, and return its path.

    text: The page.
      text: The page.
      run_dir: Directory of the run, where the page goes if `output` is None.
      output: File to write; parent folders are made.

    Raises:
      FileError: It cannot be written; an old file stays.
    """
    path = run_dir / FILE if output is None else output
    atomic_files.make_folder(path.parent)
    atomic_files.write_bytes(path, text.encode(errors="replace"))
    return path
