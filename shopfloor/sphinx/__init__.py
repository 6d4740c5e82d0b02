"""Our Sphinx extension: the book's theme, and what its pages derive from the syllabus, the labs and the ledger.

Three inputs meet here. `book/syllabus.yml` says what there is to prove. Chapters say with `{tells}` which point a
section tells. The ledger (`shopfloor_ledger`) holds what the executed notebooks claimed. Nothing derived is
committed: `{document}`, `{summary}` and `{measured}` draw it at build time, and `stale.py` sees to it that a changed
ledger redraws the pages that show it.
"""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from shopfloor import __version__
from shopfloor.sphinx import document, facts, measured, notebooks, outputs, pages, quiz, record, stale, summary, tells
from shopfloor.sphinx.derived import Derived, draw_derived, skip_node

THEME = Path(__file__).parent / "theme"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the theme, the directives and the events; Sphinx calls it."""
    app.add_html_theme("shopfloor", str(THEME))
    # Not "env": a new ledger must not have every page read again. stale.py knows which pages it concerns.
    app.add_config_value("shopfloor_ledger", "_build/ledger.json", "", str)
    app.add_config_value("shopfloor_syllabus", "book/syllabus.yml", "", str)
    app.add_config_value("shopfloor_labs", "labs", "", str)
    # Jupyter Book always sets this, for an extension that fetches scripts from other hosts and that we do not load.
    app.add_config_value("comments_config", {}, "", dict)

    app.connect("builder-inited", facts.load)
    app.add_node(Derived, html=(skip_node, None))
    record.connect(app)
    stale.connect(app)
    outputs.register()
    for directives in (document, measured, quiz, summary, tells):
        directives.register(app)
    # Derived nodes become paragraphs and tables first, so that what frames them sees the finished page.
    app.connect("doctree-resolved", draw_derived, priority=400)
    notebooks.connect(app)
    pages.connect(app)
    return {"version": __version__, "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
