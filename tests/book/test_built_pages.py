"""What the built book's files say, without a browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.book.conftest import find_browser


@pytest.mark.book
@pytest.mark.slow
def test_no_page_names_a_resource_of_another_host(built_book: Path) -> None:
    loads = re.compile(r"""<(?:script|link|img|iframe|source|use)\b[^>]*?(?:src|href)=["'](?:https?:)?//""")
    imports = re.compile(r"@import|url\((?![\"']?(?:data:|#))")
    assert [str(path) for path in built_book.rglob("*.html") if loads.search(path.read_text(encoding="utf8"))] == []
    shown = built_book / "_static" / "shopfloor.css"
    assert not imports.search(shown.read_text(encoding="utf8"))


@pytest.mark.book
@pytest.mark.slow
def test_executed_notebooks_can_be_downloaded_with_their_outputs(built_book: Path) -> None:
    offered = [*downloads(built_book)]
    assert offered
    for path in offered:
        notebook = nbformat.read(path, as_version=4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells), path
        assert any(cell.outputs for cell in cells), path


def downloads(site: Path) -> Iterator[Path]:
    for page in site.rglob("*.html"):
        for target in re.findall(r'class="sf-download[^"]*" href="([^"]+)"', page.read_text(encoding="utf8")):
            yield (page.parent / target).resolve()


def test_without_a_browser_the_tests_are_skipped_but_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser here"):
        find_browser(lambda _: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI needs a browser"):
        find_browser(lambda _: None)
    assert find_browser(lambda name: f"/usr/bin/{name}") == "/usr/bin/chromium"
