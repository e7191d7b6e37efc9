"""The README and the site hang together: length, links, pictures, tables of contents, words."""

import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import veldt
from tests.docs import pages

LINKS = re.compile(r"\]\(([^)\s]+)\)")
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
PRIVATE_WORDS = (
    r"sittings?|shelf|shelves|rivals?|reigns?|duels?|verdicts?|told apart|looks? taken"
    r"|knock(?:ed|s)?-?out"
)


def test_the_readme_is_one_page():
    assert len(pages.text(pages.README).splitlines()) <= 250


@pytest.mark.parametrize("page", pages.ALL, ids=pages.name)
def test_every_relative_link_and_picture_exists(page):
    for target in LINKS.findall(pages.text(page)):
        file = target.partition("#")[0]
        if re.match(r"[a-z]+:", target) or not file:
            continue
        path = (page.parent / file).resolve()
        assert path.exists() or path in pages.GENERATED, target


def test_every_page_is_in_one_table_of_contents():
    listed: list[Path] = []
    for page in pages.WRITTEN:
        for body in TOCTREE.findall(pages.text(page)):
            for line in body.splitlines():
                if line and not line.startswith(":"):
                    listed.append((page.parent / f"{line}.md").resolve())
    known = {*pages.WRITTEN, *pages.GENERATED} - {pages.DOCS / "index.md"}
    assert sorted(listed) == sorted(known)


@pytest.mark.parametrize("page", pages.ALL, ids=pages.name)
def test_pages_have_one_title_and_no_private_words(page):
    assert pages.text(page).startswith("# ")
    assert len(re.findall(r"^# ", pages.prose(page), re.MULTILINE)) == 1
    assert re.findall(rf"\b(?:{PRIVATE_WORDS})\b", pages.prose(page), re.IGNORECASE) == []


def test_every_how_to_is_a_question():
    for page in (pages.DOCS / "how-to").glob("*.md"):
        assert pages.text(page).splitlines()[0].endswith("?"), page.name


@pytest.mark.parametrize("page", pages.ALL, ids=pages.name)
def test_names_of_veldt_in_the_text_exist(page):
    for name in re.findall(r"`(veldt(?:\.[A-Za-z_]\w*)+)", pages.prose(page)):
        assert pkgutil.resolve_name(name), name


def test_every_wrapper_has_its_row():
    text = pages.text(pages.DOCS / "how-to" / "wrappers.md")
    for name in {*veldt.wrappers.__all__} - {"eval_params"}:
        (row,) = re.findall(rf"^\| `{name}\((.*?)\)` \|", text, re.MULTILINE)
        parameters = inspect.signature(getattr(veldt.wrappers, name)).parameters
        for word in row.split(", ")[1:]:
            parameter, _, default = word.partition("=")
            assert parameters[parameter].default == float(default)


def test_what_the_site_needs_is_pinned():
    extras = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]
    pins = (pages.ROOT / "constraints.txt").read_text().lower()
    for requirement in extras["optional-dependencies"]["docs"]:
        assert f"\n{requirement.partition('>')[0].lower()}==" in pins
