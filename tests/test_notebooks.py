from pathlib import Path

import nbformat
import pytest

from shopfloor import notebooks
from shopfloor.execution import Page, Store
from shopfloor.notebooks import write_copies
from tests.test_execution import page_of


@pytest.fixture(autouse=True)
def _no_executed_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "Store", lambda: Store(tmp_path / "executed"))


def texts(folder: Path, address: str) -> list[str]:
    return [cell.source for cell in nbformat.read(folder / f"{address}.ipynb", as_version=4).cells]


def test_each_chapter_gets_a_copy_that_the_reader_may_change(tmp_path: Path) -> None:
    pages = {"data/a": page_of(tmp_path, "data/a", "1 + 1")}
    assert write_copies(pages, tmp_path / "copies") == []
    assert "1 + 1" in texts(tmp_path / "copies", "data/a")


def test_a_copy_that_the_reader_changed_is_never_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    write_copies({"a": page_of(tmp_path, "a", "1")}, folder)
    copy = folder / "a.ipynb"
    mine = copy.read_text().replace('"1"', '"my own line"')
    copy.write_text(mine)
    assert write_copies({"a": page_of(tmp_path, "a", "2")}, folder) == ["a"]
    assert copy.read_text() == mine


def test_an_unchanged_copy_follows_the_chapter(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    write_copies({"a": page_of(tmp_path, "a", "1")}, folder)
    assert write_copies({"a": page_of(tmp_path, "a", "2")}, folder) == []
    assert "2" in texts(folder, "a")


def test_directives_of_the_book_are_left_out_and_included_code_is_shown(tmp_path: Path) -> None:
    page = Page("book/data/x", Path(notebooks.__file__))
    source = Path(notebooks.__file__).parent / "errors.py"
    text = f"""Words.

```{{tells}} P2.1.1
```

```{{literalinclude}} {source}
:start-after: Something
:end-before: The message
```
"""
    page.__dict__["notebook"] = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    (cell,) = notebooks._readable(page).cells
    assert "tells" not in cell.source
    assert "`shopfloor/errors.py`\n\n```python\n" in cell.source
    assert "{literalinclude}" not in cell.source
