"""The site builds without a warning, and its pages load nothing from the network."""

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.docs import pages

SPHINX = all(importlib.util.find_spec(name) for name in ("sphinx", "myst_nb", "sphinx_book_theme"))
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]+)\"|<link[^>]*\shref=\"([^\"]+)\""
)


@pytest.mark.slow
@pytest.mark.skipif(not SPHINX, reason="Sphinx is not installed: `make docs` does")
def test_the_site_builds_and_is_offline(tmp_path):
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    built = subprocess.run(
        [*sphinx, "-d", str(tmp_path / "doctrees"), str(pages.DOCS), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "html").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "{{" not in text or "_static" in page.parts, page.name
        for source, link in LOADED.findall(text):
            assert not re.match(r"(?:https?:)?//", source or link), page.name
