"""Markup: texts stay texts, elements are closed, tables say what their cells are."""

import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from tests.web import Page
from veldt.tasks.common.html import markup, page


@given(st.text(), st.text(), st.text())
def test_children_and_attributes_come_back_as_they_were(child, inner, value):
    # HTML reads carriage returns and NUL as something else, in any text.
    child, inner, value = (re.sub("[\r\0]", "", text) for text in (child, inner, value))
    made = markup.tag("p", child, markup.tag("b", inner), class_=value, data_x=None)
    found = Page(made)
    assert found.tags == ["p", "b"]
    assert found.attributes == [("class", value)]
    assert "".join(found.texts) == child + inner


def test_a_table_has_groups_over_its_columns_and_headings_between_its_rows():
    rows = [("part", ("<runs>",)), ("", ("a", 1, 2)), ("best", ("b", 3, 4))]
    made = markup.table(("name", "x", "y"), rows, numbers=(1, 2), groups=(("", 1), ("both", 2)))
    tree = ET.fromstring(made)
    over, heads = tree.findall("table/thead/tr")
    assert [(cell.tag, cell.get("colspan")) for cell in over] == [("td", "1"), ("th", "2")]
    assert [cell.get("class") for cell in heads] == [None, "number", "number"]
    part, first, second = tree.findall("table/tbody/tr")
    assert [(cell.tag, cell.text, cell.get("colspan")) for cell in part] == [("th", "<runs>", "3")]
    assert [cell.text for cell in first] == ["a", "1", "2"]
    assert (part.get("class"), first.get("class"), second.get("class")) == ("part", None, "best")


def test_a_table_of_one_column_has_no_headings_between_its_rows():
    tree = ET.fromstring(markup.table(("name",), [("", ("a",))]))
    assert [cell.tag for cell in tree.find("table/tbody/tr")] == ["td"]


def test_a_page_allows_nothing_from_outside_and_escapes_its_title():
    text = page.page("</title><script>", markup.tag("p", "x"), rules="p { margin: 0; }")
    found = Page(text)
    assert "script" not in found.tags
    policy = dict(found.attributes)["content"]  # Of the last `meta`, the viewport.
    assert policy == "width=device-width, initial-scale=1"
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert text.index("p { margin: 0; }") > text.index("max-width: 60rem")
