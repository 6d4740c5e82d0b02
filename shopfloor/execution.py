"""Execute the book's notebooks, each once for everything that its outputs depend on.

Parallel work corrupts timings, so a cell that measures time runs alone; all other cells run beside those of
other pages. What was executed is kept in the hidden state folder,
and from there put into the jupyter-cache that the Sphinx build reads.
"""

import ast
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_client.manager import AsyncKernelManager
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from shopfloor import contents
from shopfloor.disturbance import disturbed_since
from shopfloor.errors import UserError
from shopfloor.measure import provenance
from shopfloor.paths import Material, material
from shopfloor.services.versions import server_versions
from shopfloor.turns import Turns

TIMED_TAG = "nbval-ignore-output"
"""A cell so tagged shows what no two runs share, a time: nbval leaves its output, and it runs alone."""

CELL_TIMEOUT_SECONDS = 300
PARALLEL_PAGES = 3  # one more than the fewest cores: cells wait for loads and for their turn to be alone

_REPORT = "import json as _json; from shopfloor.dependencies import used_files as _used; print(_json.dumps(_used()))"


@dataclass(frozen=True)
class Page:
    """A page of the book that has code to execute.

    Attributes:
        name: its Sphinx name, such as `book/data/indexing`.
        path: its source.
    """

    name: str
    path: Path

    @cached_property
    def notebook(self) -> NotebookNode:
        """The page as a notebook, read the way myst-nb reads it, so that both find the same cells."""
        read: NotebookNode = read_myst_markdown_notebook(self.path.read_text(encoding="utf-8"), path=self.path)
        return read

    @property
    def is_timed(self) -> bool:
        """Whether a cell measures time."""
        return any(_is_timed(cell) for cell in code_cells(self.notebook))


@dataclass(frozen=True)
class Failure:
    """A page whose execution failed, and why, in words for its author."""

    page: Page
    message: str


class Store:
    """The executed notebooks, a file a page, in the state folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or material().state / "executed"

    def path(self, page: Page) -> Path:
        """Where the executed notebook of `page` is kept."""
        return self.folder / f"{page.name.replace('/', '.')}.ipynb"

    def get(self, page: Page) -> NotebookNode | None:
        """The executed notebook of `page`, when everything that it depended on is still the same."""
        try:
            executed = nbformat.read(self.path(page), as_version=4)
            about = executed.metadata["shopfloor"]
            files = list(about["inputs"]["files"])
        except (OSError, ValueError, KeyError, nbformat.reader.NotJSONError):
            return None
        return executed if about["inputs"] == inputs_of(page, files) else None

    def put(self, page: Page, executed: NotebookNode) -> None:
        """Keep the executed notebook of `page`, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.path(page).with_suffix(".partial")
        nbformat.write(executed, partial)
        partial.replace(self.path(page))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells of a notebook, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _is_timed(cell: NotebookNode) -> bool:
    return TIMED_TAG in cell.metadata.get("tags", [])


def notebook_pages(source: Material | None = None) -> list[Page]:
    """The pages in the table of contents that have code cells.

    Raises:
        UserError: the table of contents names a missing page, or a page has code cells but no header
            that makes it a notebook: Jupyter Book would print the cells and never run them.
    """
    place = source or material()
    pages = []
    for name in contents.pages(place.root):
        path = place.root / f"{name}.md"
        if not path.is_file():
            raise UserError(f"_toc.yml names {name}, but there is no {name}.md. Write the page or take the line out.")
        text = path.read_text(encoding="utf-8")
        if "```{code-cell}" not in text:
            continue
        if not is_myst_markdown_notebook(text):
            raise UserError(
                f"{name}.md has code cells but no jupytext header, so they would be shown and never run. "
                "Copy the header of book/data/indexing.md."
            )
        pages.append(Page(name, path))
    return pages


def inputs_of(page: Page, files: Iterable[str]) -> dict[str, Any]:
    """Everything that the outputs of `page` depend on, as far as it can be compared.

    Args:
        page: the page.
        files: the files of the working copy that its kernel used when it was executed.
    """
    root = material().root
    cells = [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in code_cells(page.notebook)]
    return {
        "cells": hashlib.sha256(json.dumps(cells).encode()).hexdigest(),
        "lock": _digest(root / "requirements.lock"),
        "python": sys.version,
        "servers": server_versions(),
        "files": {name: _digest(root / name) for name in files},
    }


def execute(
    pages: Sequence[Page],
    store: Store,
    *,
    on_start: Callable[[Page], None] = lambda _: None,
    on_done: Callable[[Page], None] = lambda _: None,
) -> list[Failure]:
    """Execute `pages` side by side, what measures time alone, and keep what came of them.

    Args:
        pages: those that the store does not have.
        store: where executed notebooks are kept.
        on_start: called when a page's execution begins.
        on_done: called when a page was executed and kept. No cell that measures time runs meanwhile.

    Returns:
        The pages that failed; the others were executed all the same.
    """
    return asyncio.run(_execute_all(pages, store, on_start, on_done))


async def _execute_all(
    pages: Sequence[Page], store: Store, on_start: Callable[[Page], None], on_done: Callable[[Page], None]
) -> list[Failure]:
    places, turns = asyncio.Semaphore(PARALLEL_PAGES), Turns()

    async def run(page: Page) -> Failure | None:
        async with places:
            on_start(page)
            failure = await _execute_page(page, store, turns)
        if failure is None:
            async with turns.side_by_side():
                on_done(page)
        return failure

    return [failure for failure in await asyncio.gather(*(run(page) for page in pages)) if failure]


class _Client(NotebookClient):
    """Executes a notebook, each cell when it is its turn."""

    def __init__(self, notebook: NotebookNode, turns: Turns, **settings: Any) -> None:
        super().__init__(notebook, **settings)
        self._turns = turns

    @asynccontextmanager
    async def async_setup_kernel(self, **settings: Any) -> AsyncIterator[None]:
        """Start the kernel, and shut it down at the end.

        nbclient's own also takes the loop's signals, one notebook from another: an interrupt would end one of several
        kernels, and the pages of the others would run on. asyncio's handler cancels them all.
        """
        settings.pop("cleanup_kc")
        try:
            async with self._turns.side_by_side():
                await self.async_start_new_kernel(**settings)
                await self.async_start_new_kernel_client()
            yield
        except (asyncio.CancelledError, DeadKernelError):  # nbclient says of a cancelled cell that the kernel died
            self.shutdown_kernel = "immediate"  # a kernel at work that is asked to end prints where it was
            raise
        finally:
            async with self._turns.side_by_side():
                await self._async_cleanup_kernel()

    async def async_execute_cell(self, cell: NotebookNode, *place: Any, **settings: Any) -> NotebookNode:
        async with self._turns.alone() if _is_timed(cell) else self._turns.side_by_side():
            return await super().async_execute_cell(cell, *place, **settings)


async def _execute_page(page: Page, store: Store, turns: Turns) -> Failure | None:
    notebook = deepcopy(page.notebook)
    notebook.cells.append(nbformat.v4.new_code_cell(_REPORT))
    async with turns.alone():  # whether the machine is busy is asked while nothing of the book's runs
        began, measured_at = time.time(), provenance(server_versions())
    with tempfile.TemporaryDirectory(prefix="sf-") as sockets:
        # Unix sockets, since a kernel's TCP ports are chosen before it binds them and can be lost to another.
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(Path(sockets) / "k"))
        client = _Client(
            notebook,
            turns,
            km=manager,
            timeout=CELL_TIMEOUT_SECONDS,
            resources={"metadata": {"path": str(page.path.parent)}},
        )
        try:
            await client.async_execute(cleanup_kc=True)
        except CellExecutionError as error:
            return Failure(page, _explain(page, notebook, error))
        except (TimeoutError, RuntimeError) as error:  # nbclient: a cell took too long, or the kernel died
            return Failure(page, f"{page.name}: {error}")
    used = json.loads(notebook.cells.pop().outputs[0].text)
    inputs = inputs_of(page, used)
    if disturbed_since(began):
        measured_at = replace(measured_at, busy=True)
    notebook.metadata["shopfloor"] = {
        "inputs": inputs,
        "key": hashlib.sha256(json.dumps([inputs, measured_at.date]).encode()).hexdigest()[:16],
        "provenance": asdict(measured_at),
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # nbclient's time stamps: the same outputs should be the same file
    store.put(page, notebook)
    return None


def _explain(page: Page, notebook: NotebookNode, error: CellExecutionError) -> str:
    """Which cell failed, with the lines that did, and the error as Python says it."""
    cells = code_cells(notebook)
    failed = next((cell for cell in cells if any(output.output_type == "error" for output in cell.outputs)), cells[-1])
    if error.ename == "ClaimFailed":
        return f"{page.name}: a claim does not hold. {error.evalue}"
    code = "\n".join(f"    {line}" for line in failed.source.splitlines())
    return f"{page.name}: a cell failed:\n{code}\n{error.ename}: {error.evalue}"


def fill_jupyter_cache(pages: Iterable[Page], store: Store, folder: Path) -> dict[str, NotebookNode | None]:
    """Put each page's outputs where the Sphinx build looks for them.

    A page that is not executed yet gets a stand-in that says so, so that the book can be read before
    it is measured; a build that must be whole asks for executed pages first.

    Returns:
        Each page's executed notebook by its name, `None` where there is none.
    """
    cache = get_cache(folder)
    filled: dict[str, NotebookNode | None] = {}
    for page in pages:
        executed = store.get(page)
        filled[page.name] = executed
        bundle = CacheBundleIn(executed or _stand_in(page), str(page.path))
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return filled


def _stand_in(page: Page) -> NotebookNode:
    """The page with a note in place of every output that its cells will show."""
    notebook = deepcopy(page.notebook)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}  # a kernel would tell
    note = {"text/html": '<div class="sf-pending">Not measured on this machine yet.</div>'}
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = number
        if _shows_a_value(cell.source):
            cell.outputs = [nbformat.v4.new_output("display_data", data=note)]
    return notebook


def _shows_a_value(source: str) -> bool:
    body = ast.parse(source).body
    return bool(body) and isinstance(body[-1], ast.Expr)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
