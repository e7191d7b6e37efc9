"""A page around its sections: head, style, and the order for printing.

The page refers to nothing outside itself, and its content security policy would not let it: no
scripts, no fonts, no pictures from anywhere.
"""

from typing import Final

from veldt.tasks.common.html import style
from veldt.tasks.common.html.markup import Html, escape, join

_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(title: str, *sections: Html, rules: str = "") -> str:
    """A whole page.

    Args:
      title: what it is about; escaped.
      *sections: the body.
      rules: style rules of its own, after those of every page.
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
