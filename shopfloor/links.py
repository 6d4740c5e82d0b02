"""Check the built book's own links: every page, file and anchor that a page points to is there."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


class _Page(HTMLParser):
    """What one page points to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors.update(value for key in ("id", "name") if (value := values.get(key)))
        target = values.get("href" if tag in {"a", "link"} else "src")
        if target is not None:
            self.targets.add(target)


def broken_links(site: Path) -> list[str]:
    """The links within `site` that lead nowhere, as sentences; external ones are not followed.

    Args:
        site: the folder of a built book.
    """
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site)} links to {target}, which {problem}"
        for path, page in pages.items()
        for target in sorted(page.targets)
        if (problem := _problem(path, target, pages))
    ]


def _problem(source: Path, target: str, pages: dict[Path, _Page]) -> str | None:
    address, fragment = urldefrag(target)
    if urlsplit(address).scheme:
        return None
    place = (source.parent / unquote(urlsplit(address).path)).resolve() if address else source
    if place.is_dir():
        place /= "index.html"
    if not place.exists():
        return "is not there"
    if fragment and place in pages and unquote(fragment) not in pages[place].anchors:
        return "has no such anchor"
    return None
