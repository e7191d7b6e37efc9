"""A page in a notebook: in a frame, whole, and without power."""

import html.parser

from veldt.tasks.common.html import page
from veldt.tasks.common.html.markup import tag
from veldt.tasks.common.html.shown_page import ShownPage

TEXT = page.page("a title", tag("p", 'a < b & "c"'))


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))


def test_a_notebook_gets_the_page_in_a_frame():
    reader = Reader()
    reader.feed(ShownPage(TEXT, 300)._repr_html_())
    ((name, attributes),) = reader.tags
    assert name == "iframe" and attributes["srcdoc"] == TEXT
    assert attributes["sandbox"] == "" and attributes["height"] == "300"


def test_a_page_is_saved_and_short_in_words(tmp_path):
    shown = ShownPage(TEXT, path=tmp_path / "there.html")
    assert shown.save(tmp_path / "new" / "page.html").read_text() == TEXT
    assert "there.html" in repr(shown) and len(repr(shown)) < 300
