"""What was built is looked at: links inside lead somewhere, and nothing is loaded from outside."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

_LOG = logging.getLogger(__name__)
_LOADED = {
    ("img", "src"),
    ("script", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
}


class _Page(HTMLParser):
    """The anchors of a page, what it links to, and what a browser loads with it."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = {"", "top"}, set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.anchors.add(value)
            elif (tag, name) in _LOADED and value and not value.startswith("data:"):
                self.loaded.add(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.add(value)


def problems(folder):
    """What is wrong with a folder of HTML pages, a sentence each."""
    folder = Path(folder).resolve()
    pages = {path.resolve(): _Page(path.read_text()) for path in folder.rglob("*.html")}
    for path, page in sorted(pages.items()):
        where = path.relative_to(folder)
        for link in sorted(page.links | page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded:
                    yield f"{where} loads {link} from outside"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{where} leads to {link}, which does not exist"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where} leads to {link}, where there is no such anchor"


def _check(app, exception):
    if exception is None and app.builder.format == "html":
        for problem in problems(app.outdir):
            _LOG.warning(problem)


def setup(app):
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
