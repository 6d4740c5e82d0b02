"""Build the handbook: execute what changed, draw the pages, refuse what is broken; and serve it."""

import fcntl
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat

from shopfloor import ledger
from shopfloor.errors import UserError
from shopfloor.execution import Page, Store, execute, fill_jupyter_cache, notebook_pages
from shopfloor.links import broken_links
from shopfloor.paths import material
from shopfloor.services import running_services
from shopfloor.services.process import start_child
from shopfloor.serving import site

Say = Callable[[str], None]


def build(say: Say = lambda _: None) -> Path:
    """Build the whole book, measured, and return its folder.

    Args:
        say: told what happens.

    Raises:
        UserError: a page failed, a claim is false, a link is broken, or Sphinx has a warning.
    """
    with exclusive(say):
        pages, store = notebook_pages(), Store()
        failures = execute_stale(pages, store, say)
        if failures:
            raise UserError("The book was not built.\n\n" + "\n\n".join(failures))
        say("drawing the pages")
        draw(pages, store)
        check_executed(pages)
    return site()


def execute_stale(
    pages: Sequence[Page], store: Store, say: Say, on_done: Callable[[Page], None] = lambda _: None
) -> list[str]:
    """Execute the pages that changed, or whose shop, tools or servers did; return what failed, in words."""
    stale = [page for page in pages if store.get(page) is None]
    if not stale:
        return []
    with running_services():  # for the whole execution: a kernel that owned them would end them under the others
        failures = execute(stale, store, on_start=lambda page: say(f"measuring {page.name}"), on_done=on_done)
    return [failure.message for failure in failures]


def draw(pages: Sequence[Page], store: Store) -> None:
    """Draw the pages from what is executed so far, and check every link.

    Raises:
        UserError: Sphinx has a warning or an error, or a link leads nowhere.
    """
    filled = fill_jupyter_cache(pages, store, material().build / ".jupyter_cache")
    ledger.write(filled)
    _run_sphinx()
    _remove_notebooks_but(pages)
    broken = broken_links(site())
    if broken:
        raise UserError("Links that lead nowhere:\n" + "\n".join(broken))


def check_executed(pages: Sequence[Page]) -> None:
    """Refuse a book in which a code cell was drawn without having been run.

    Raises:
        UserError: names the pages.
    """
    unexecuted = [page.name for page in pages if not _is_executed(page)]
    if unexecuted:
        raise UserError(f"Drawn but not executed: {', '.join(unexecuted)}. Does each have the jupytext header?")


def _is_executed(page: Page) -> bool:
    path = material().build / "jupyter_execute" / f"{page.name}.ipynb"
    if not path.is_file():
        return False
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return all(cell.execution_count for cell in cells)


def _remove_notebooks_but(pages: Sequence[Page]) -> None:
    """Remove the executed notebooks of pages that have left the table of contents: nbval would run them, too."""
    folder = material().build / "jupyter_execute"
    kept = {folder / f"{page.name}.ipynb" for page in pages}
    for path in folder.rglob("*.ipynb"):
        if path not in kept:
            path.unlink()


def _run_sphinx() -> None:
    """Run Jupyter Book with warnings as errors, and show only what went wrong."""
    program = [sys.executable, "-c", "import shopfloor; from jupyter_book.cli.main import main; main()"]
    arguments = ["build", str(material().root), "-W", "--keep-going", "--quiet"]
    log = material().state / "sphinx.log"
    with start_child([*program, *arguments], log=log, cwd=material().root) as sphinx:
        while sphinx.poll() is None:
            time.sleep(0.02)
    if sphinx.poll() == 0:
        return
    # Sphinx tells a warning when it reads a page, and it would not read an unchanged page again.
    shutil.rmtree(material().build / ".doctrees", ignore_errors=True)
    lines = log.read_text(errors="replace").splitlines()
    problems = [line for line in lines if "WARNING" in line or "ERROR" in line or "rror:" in line]
    raise UserError("Sphinx could not build the book:\n" + "\n".join(problems or lines[-20:]))


@contextmanager
def exclusive(say: Say) -> Iterator[None]:
    """Hold the lock of this working copy's build: two at once would write into each other's files."""
    material().state.mkdir(exist_ok=True)
    with (material().state / "book.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of this copy")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
