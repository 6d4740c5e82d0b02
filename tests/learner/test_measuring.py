"""The book is measured beside the watcher, and each knows of the other."""

import io
import time
from pathlib import Path
from types import SimpleNamespace

from shopfloor import disturbance
from shopfloor.execution import Store, execute
from shopfloor.measuring import Kind, News, _news
from tests.test_execution import page_of


def test_a_page_that_is_measured_while_a_check_runs_says_that_the_machine_was_busy(tmp_path: Path) -> None:
    before = time.time()
    assert not disturbance.disturbed_since(before + 3600)
    page, store = page_of(tmp_path, "data/a", "from shopfloor import disturbance\ndisturbance.note()"), Store(tmp_path)
    assert execute([page], store) == []
    executed = store.get(page)
    assert executed
    assert executed.metadata["shopfloor"]["provenance"]["busy"] is True
    assert disturbance.disturbed_since(before)


def test_news_end_with_their_process(tmp_path: Path) -> None:
    child = SimpleNamespace(wait=lambda _: 0, log=tmp_path / "log")
    lines = '{"kind": "drawn", "text": "Drawn."}\n{"kind": "end", "text": ""}\n'
    assert list(_news(io.StringIO(lines), child)) == [News(Kind.DRAWN, "Drawn.")]  # type: ignore[arg-type]


def test_a_process_that_breaks_off_is_said(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("Segmentation fault\n")
    child = SimpleNamespace(wait=lambda _: -11, log=tmp_path / "log")
    (news,) = _news(io.StringIO(""), child)  # type: ignore[arg-type]
    assert news.kind is Kind.WRONG
    assert "Segmentation fault" in news.text
