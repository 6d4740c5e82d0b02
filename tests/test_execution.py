"""The executor, on small pages of its own: lanes, keys, and failures told in words."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import nbformat
import pytest
import yaml

from shopfloor import execution
from shopfloor.errors import UserError
from shopfloor.execution import Page, Store, execute, fill_jupyter_cache, notebook_pages
from shopfloor.ledger import claims_of
from shopfloor.paths import Material
from shopfloor.turns import Turns

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---
"""


def page_of(tmp_path: Path, name: str, *cells: str, tags: str = "") -> Page:
    option = f":tags: [{tags}]\n" if tags else ""
    path = tmp_path / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join(f"```{{code-cell}}\n{option}{cell}\n```\n" for cell in cells)
    path.write_text(f"{HEADER}\n# {name}\n\n{body}")
    return Page(name, path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "executed")


@pytest.mark.slow
def test_an_executed_page_is_kept_with_its_outputs_claims_and_provenance(tmp_path: Path, store: Store) -> None:
    page = page_of(tmp_path, "a", "from shopfloor.claims import claim\nclaim('Two', 1 + 1, equals=2, covers='P2.1.1')")
    assert store.get(page) is None
    assert execute([page], store) == []
    kept = store.get(page)
    assert kept is not None
    assert [claim["display"] for claim in claims_of(kept)] == ["2"]
    assert kept.metadata["shopfloor"]["provenance"]["cores"] >= 1
    assert len(kept.cells) == len(page.notebook.cells), "the executor's own cell stayed"


@pytest.mark.slow
def test_a_page_is_stale_when_its_code_its_tags_or_a_module_that_it_imports_changes(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(tmp_path, "a", "from shopfloor import claims\n1")
    execute([page], store)
    assert store.get(page) is not None
    assert store.get(page_of(tmp_path, "a", "from shopfloor import claims\n2")) is None
    assert store.get(page_of(tmp_path, "a", "from shopfloor import claims\n1", tags="x")) is None
    page = page_of(tmp_path, "a", "from shopfloor import claims\n1")
    assert store.get(page) is not None, "a sentence or nothing changed, and the page was stale"
    digest = execution._digest
    monkeypatch.setattr(execution, "_digest", lambda path: "other" if path.name == "claims.py" else digest(path))
    assert store.get(page) is None, "an imported module changed, and its page was not stale"
    monkeypatch.setattr(execution, "_digest", lambda path: "other" if path.name == "load.py" else digest(path))
    assert store.get(page) is not None, "a module that the page does not import made it stale"


@pytest.mark.slow
def test_cells_run_beside_those_of_other_pages_and_one_that_measures_time_alone(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_to_be_alone = []

    class Recorded(Turns):
        def alone(self) -> AbstractAsyncContextManager[None]:
            asked_to_be_alone.append(1)
            return super().alone()

    monkeypatch.setattr(execution, "Turns", Recorded)
    # Each page's first cell waits for the other's to have begun: alone, one of them would wait for ever.
    beside = """
import pathlib, time
here = pathlib.Path({folder!r})
(here / "{me}.running").touch()
deadline = time.monotonic() + 60
while not (here / "{other}.running").exists() and not (here / "{other}.ended").exists():
    assert time.monotonic() < deadline, "the other page did not begin"
    time.sleep(0.01)
(here / "{me}.ended").touch()
(here / "{me}.running").unlink()
"""
    # Each page's second asserts that it sees nobody, and is seen by nobody while it runs.
    alone = """
assert not list(here.glob("*.running"))
(here / "{me}.running").touch()
(here / "{me}.running").unlink()
"""
    pages = []
    for me, other in (("a", "b"), ("b", "a")):
        first, second = (cell.format(folder=str(tmp_path), me=me, other=other) for cell in (beside, alone))
        page = page_of(tmp_path, me, first, second, second, "1")
        text = page.path.read_text()
        page.path.write_text(
            text.replace("```{code-cell}\n\nassert", f"```{{code-cell}}\n:tags: [{execution.TIMED_TAG}]\n\nassert")
        )
        pages.append(page)
    assert [page.is_timed for page in pages] == [True, True]
    assert execute(pages, store) == []
    assert len(asked_to_be_alone) == len(pages) * (1 + 2), "not once for each page and each cell that measures time"


@pytest.mark.slow
def test_failures_name_the_page_and_the_cause_and_stop_no_other_page(tmp_path: Path, store: Store) -> None:
    false = page_of(tmp_path, "false", "from shopfloor.claims import claim\nclaim('Two', 3, equals=2)")
    broken = page_of(tmp_path, "broken", "x = 1", "x / 0")
    dead = page_of(tmp_path, "dead", "import os\nos._exit(1)")
    good = page_of(tmp_path, "good", "1")
    failures = {failure.page.name: failure.message for failure in execute([false, broken, dead, good], store)}
    assert failures["false"] == "false: a claim does not hold. Two: measured 3, claimed exactly 2"
    assert failures["broken"] == "broken: a cell failed:\n    x / 0\nZeroDivisionError: division by zero"
    assert "died" in failures["dead"]
    assert store.get(good) is not None
    assert set(failures) == {"false", "broken", "dead"}


def test_a_page_that_is_not_executed_yet_says_so_in_place_of_each_figure(tmp_path: Path, store: Store) -> None:
    page = page_of(tmp_path, "a", "x = 1", "x")
    assert fill_jupyter_cache([page], store, tmp_path / "cache") == {"a": None}
    (base,) = (tmp_path / "cache").rglob("base.ipynb")
    cells = nbformat.read(base, as_version=4).cells
    assert [len(cell.outputs) for cell in cells] == [0, 1]
    assert "Not measured" in cells[1].outputs[0].data["text/html"]


def test_a_damaged_executed_page_is_as_good_as_none(tmp_path: Path, store: Store) -> None:
    page = page_of(tmp_path, "a", "1")
    store.folder.mkdir()
    store.path(page).write_text('{"cells": [')
    assert store.get(page) is None


def material_of(tmp_path: Path, toc: object) -> Material:
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    return Material(tmp_path)


def test_pages_with_code_are_found_in_the_table_of_contents(tmp_path: Path) -> None:
    page_of(tmp_path, "book/a", "1")
    (tmp_path / "book/index.md").write_text("# Words only\n")
    toc = {"format": "jb-book", "root": "book/index", "parts": [{"caption": "P", "chapters": [{"file": "book/a"}]}]}
    assert [page.name for page in notebook_pages(material_of(tmp_path, toc))] == ["book/a"]


def test_a_page_that_would_silently_not_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\n```{code-cell}\n1\n```\n")
    with pytest.raises(UserError, match="a.md has code cells but no jupytext header"):
        notebook_pages(material_of(tmp_path, {"root": "a"}))


def test_a_missing_page_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no gone.md"):
        notebook_pages(material_of(tmp_path, {"root": "gone"}))
