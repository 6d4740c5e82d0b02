"""Building again: what changed is drawn anew, wherever it shows, and nothing else."""

import json
import os
from pathlib import Path

import pytest
from sphinx.errors import ExtensionError

from shopfloor import book
from shopfloor.execution import Page
from shopfloor.paths import Material
from shopfloor.sphinx import document
from tests.book.tiny import NOT_MEASURED, TinyBook, measured, recorded_claim


@pytest.fixture
def measured_book(tiny_book: TinyBook) -> TinyBook:
    """A built book with a measured notebook, a page that shows the sum, and a page that shows nothing of either."""
    tiny_book.write_notebook()
    tiny_book.write("book/welcome.md", "# Welcome\n\n```{summary}\n```\n")
    tiny_book.write("book/aside.md", "# Aside\n")
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim()))
    tiny_book.build()
    return tiny_book


def written_again(book: TinyBook) -> set[str]:
    """Build, and say which pages were written."""
    pages = {path: path.stat().st_mtime_ns for path in book.out.glob("book/**/*.html")}
    for path in pages:
        os.utime(path)  # Sphinx leaves a page alone that is newer than its source
    before = {path: path.stat().st_mtime_ns for path in pages}
    assert book.build() == ""
    return {path.stem for path in pages if path.exists() and path.stat().st_mtime_ns != before[path]}


def test_nothing_changed_reads_and_writes_nothing(measured_book: TinyBook) -> None:
    assert written_again(measured_book) == set()
    assert measured_book.read == []


def test_a_changed_ledger_redraws_its_page_and_those_that_show_it(measured_book: TinyBook) -> None:
    measured_book.write_ledger(book__data__indexing=measured(recorded_claim(display="22 blocks"), key="k2"))
    assert written_again(measured_book) == {"indexing", "P", "welcome"}
    assert measured_book.read == ["book/data/indexing"]
    assert "It holds 22 blocks" in measured_book.text()


def test_a_page_that_was_not_measured_gains_its_figures(tiny_book: TinyBook) -> None:
    tiny_book.write_notebook()
    tiny_book.write_ledger(book__data__indexing=NOT_MEASURED)
    tiny_book.build()
    assert "being measured" in tiny_book.text("book/data/indexing")
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim()))
    tiny_book.build()
    assert "being measured" not in tiny_book.text("book/data/indexing")
    assert "1 of 2 points proved" in tiny_book.text()


def test_a_point_told_elsewhere_now_is_drawn_so(measured_book: TinyBook) -> None:
    measured_book.write_chapter("book/aside", tells="P1.2.1", heading="Order")
    assert written_again(measured_book) >= {"aside", "P"}
    assert "P1.2.1 lock in one order Told A chapter: Order" in measured_book.text()
    measured_book.write("book/aside.md", "# Aside\n")
    measured_book.build()
    assert "P1.2.1 lock in one order Not built yet." in measured_book.text()


def test_a_page_that_is_gone_tells_nothing(measured_book: TinyBook) -> None:
    (measured_book.root / "book/data/indexing.ipynb").unlink()
    measured_book.write_ledger()
    assert measured_book.build() == ""
    assert "P1.1.1 index WHERE columns Not built yet." in measured_book.text()


def test_a_changed_lab_redraws_the_documents(measured_book: TinyBook) -> None:
    measured_book.write("labs/data/locks/lab.toml", 'title = "Lock it"\ncovers = ["P1.2.1"]\n')
    assert written_again(measured_book) == {"P", "welcome"}
    assert "Practised Lock it" in measured_book.text()


def test_a_changed_syllabus_redraws_the_documents(measured_book: TinyBook) -> None:
    path = measured_book.root / "book/syllabus.yml"
    path.write_text(path.read_text(encoding="utf8").replace("lock in one order", "lock late"), encoding="utf8")
    measured_book.build()
    assert "P1.2.1 lock late" in measured_book.text()


def test_a_changed_title_reaches_the_navigation_of_every_page(measured_book: TinyBook) -> None:
    measured_book.write("book/aside.md", "# Beside\n")
    measured_book.build()
    assert "Beside" in measured_book.page("book/welcome")


def test_code_shown_from_a_file_follows_the_file(measured_book: TinyBook) -> None:
    measured_book.write("solutions/a.py", "old = 1\n")
    measured_book.write("book/aside.md", "# Aside\n\n```{literalinclude} ../solutions/a.py\n```\n")
    measured_book.build()
    path = measured_book.root / "solutions/a.py"
    path.write_text("new = 1\n", encoding="utf8")
    later = path.stat().st_mtime + 2
    os.utime(path, (later, later))
    measured_book.build()
    assert "new" in measured_book.text("book/aside")


def test_a_build_broken_off_is_made_good_by_the_next(measured_book: TinyBook, monkeypatch: pytest.MonkeyPatch) -> None:
    measured_book.write_ledger(book__data__indexing=measured(recorded_claim(display="22 blocks"), key="k2"))
    with monkeypatch.context() as patch:
        patch.setattr(document.DocumentCount, "draw", broken_off)
        with pytest.raises(ExtensionError):
            measured_book.build()
    assert "21 blocks" in measured_book.text()
    assert written_again(measured_book) >= {"indexing", "P", "welcome"}
    assert "22 blocks" in measured_book.text()


def broken_off(*_: object) -> None:
    raise ValueError("broken off")


def test_pages_read_by_several_processes_tell_the_same(tiny_book: TinyBook) -> None:
    for number in range(8):
        tiny_book.write_chapter(f"book/data/page{number}", tells="P1.1.1", heading=f"Heading {number}")
    assert tiny_book.build(parallel=2) == ""
    assert all(f"Heading {number}" in tiny_book.text() for number in range(8))


def test_what_was_drawn_is_kept_without_the_ledgers_text(measured_book: TinyBook) -> None:
    kept = json.loads((measured_book.root / "_build/.doctrees/shopfloor-drawn.json").read_text())
    assert set(kept) == {"navigation", "proofs", "measured"}


def test_notebooks_of_pages_that_are_gone_are_not_left_for_nbval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "material", lambda: Material(tmp_path))
    folder = tmp_path / "_build/jupyter_execute/book/data"
    folder.mkdir(parents=True)
    for name in ("here", "gone"):
        (folder / f"{name}.ipynb").write_text("{}")
    book._remove_notebooks_but([Page("book/data/here", tmp_path / "book/data/here.md")])
    assert [path.name for path in folder.iterdir()] == ["here.ipynb"]
