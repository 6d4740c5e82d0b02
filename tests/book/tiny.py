"""A book of a few lines, built with our extension and theme in the test's own folder."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

SYLLABUS = """
documents:
  P:
    title: Patterns
    subject: patterns
    sections:
      P1.1:
        title: Indexing
        chapter: data/indexing
        points:
          - index WHERE columns
          - index JOIN columns
      P1.2:
        title: Locks
        chapter: data/locks
        points:
          - lock in one order
"""

PROVENANCE = {
    "processor": "Test processor",
    "cores": 2,
    "memory_gib": 7.8,
    "os": "Linux 6",
    "python": "3.11.9",
    "versions": {"postgresql": "18.6"},
    "commit": "abc1234",
    "date": "2025-11-21T00:51:00+00:00",
    "busy": False,
}


def recorded_claim(text: str = "It holds", covers: str = "P1.1.1", display: str = "21 blocks") -> dict[str, Any]:
    """A claim as the ledger has it."""
    return {"id": "it-holds", "text": text, "display": display, "covers": [covers], "passed": True}


def measured(*claims: dict[str, Any], key: str = "k1", busy: bool = False) -> dict[str, Any]:
    """An executed page as the ledger has it."""
    return {"executed": True, "key": key, "provenance": PROVENANCE | {"busy": busy}, "claims": list(claims)}


NOT_MEASURED: dict[str, Any] = {"executed": False, "key": "", "provenance": None, "claims": []}


class TinyBook:
    """Writes the parts of a book below `root` and builds them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "_build" / "html"
        self.read: list[str] = []
        self.write("book/syllabus.yml", SYLLABUS)
        self.write("book/P.md", "# Patterns\n\n```{document} P\n```\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")

    def write_chapter(self, name: str = "book/data/indexing", tells: str = "P1.1.1", heading: str = "The cure") -> None:
        self.write(f"{name}.md", f"# A chapter\n\n## {heading}\n\n```{{tells}} {tells}\n```\n\nText.\n")

    def write_notebook(self, name: str = "book/data/indexing", outputs: list[dict[str, Any]] | None = None) -> None:
        """An executed notebook whose one cell shows `outputs`, each a bundle of MIME types."""
        shown = [nbformat.v4.new_output("display_data", data=data) for data in outputs or []]
        cells = [
            nbformat.v4.new_markdown_cell("# A chapter\n\n```{tells} P1.1.1\n```"),
            nbformat.v4.new_code_cell("1 + 1", outputs=shown, execution_count=1),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        self.write(f"{name}.ipynb", nbformat.writes(notebook))

    def write_ledger(self, **pages: dict[str, Any]) -> None:
        """Pages by name, with a double underscore for each slash."""
        entries = {name.replace("__", "/"): entry for name, entry in pages.items()}
        self.write("_build/ledger.json", json.dumps({"pages": entries}))

    def build(self, parallel: int = 1) -> str:
        """Build what needs it; give the warnings, which `-W` would make errors. `read` names the pages read."""
        warnings = io.StringIO()
        self.read = []
        self._list_pages()
        settings = {
            "extensions": ["myst_nb", "shopfloor.sphinx"],
            "html_theme": "shopfloor",
            "nb_execution_mode": "off",
            "exclude_patterns": ["_build"],
            "html_title": "Tiny",
        }
        with patch_docutils(), docutils_namespace():
            app = Sphinx(
                str(self.root),
                None,
                str(self.out),
                str(self.root / "_build" / ".doctrees"),
                "html",
                confoverrides=settings,
                status=None,
                warning=warnings,
                parallel=parallel,
            )
            app.connect("source-read", lambda _app, page, _source: self.read.append(page))
            app.build()
        return warnings.getvalue()

    def _list_pages(self) -> None:
        pages = sorted(
            path.relative_to(self.root).with_suffix("").as_posix()
            for folder in ("book", "labs")
            for path in (self.root / folder).rglob("*")
            if path.suffix in {".md", ".ipynb"}
        )
        listing = "\n".join(["# Tiny", "", "```{toctree}", *pages, "```", ""])
        index = self.root / "index.md"
        if not index.exists() or index.read_text(encoding="utf8") != listing:
            self.write("index.md", listing)

    def page(self, name: str = "book/P") -> str:
        """The HTML of a built page."""
        return (self.out / f"{name}.html").read_text(encoding="utf8")

    def text(self, name: str = "book/P") -> str:
        """The article of a built page, without its markup."""
        article = self.page(name).split('<article class="sf-article">')[1].split("</article>")[0]
        words = _Words()
        words.feed(article)
        return " ".join("".join(words.pieces).split())


class _Words(HTMLParser):
    """The words of a piece of HTML, those of different blocks apart."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"a", "code", "em", "span", "strong"}:
            self.pieces.append(" ")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)
