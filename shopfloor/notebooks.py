"""The chapters as notebooks that a reader may change and run, in JupyterLab."""

import hashlib
import json
import os
import re
import sys
import time
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from shopfloor.console import out
from shopfloor.errors import UserError
from shopfloor.execution import Page, Store, notebook_pages
from shopfloor.paths import material
from shopfloor.services import running_services
from shopfloor.services.process import log_tail, start_child, wait_until_ready

_OWN_DIRECTIVES = re.compile(r"^```\{(tells|quiz|provenance)\}.*?^```\n?", re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(r"^```\{literalinclude\} (?P<path>\S+)\n(?P<options>.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"^:(start-after|end-before): \"?(.+?)\"?$", re.MULTILINE)


def run(address: str) -> None:
    """Write the reader's copies, start JupyterLab on them and wait until it is stopped.

    Args:
        address: the chapter to open first, such as `data/indexing`; empty opens the folder.

    Raises:
        UserError: there is no such chapter.
    """
    pages = {page.name.removeprefix("book/"): page for page in notebook_pages()}
    if address and address not in pages:
        near = get_close_matches(address, pages, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(pages)}."
        raise UserError(f"No chapter is called {address!r}. {hint}")
    folder = material().root / "workspace" / "notebooks"
    kept = write_copies(pages, folder)
    for name in kept:
        out.print(f"{name}: your copy was changed by you and is left alone; delete it to get the chapter's own.")
    with running_services():
        _run_jupyterlab(folder, f"{address}.ipynb" if address else "")


def write_copies(pages: dict[str, Page], folder: Path) -> list[str]:
    """Write each chapter as a notebook, unless the reader changed the copy that is there.

    Args:
        pages: chapters by address.
        folder: where the copies are.

    Returns:
        The addresses whose copies the reader changed; they are left as they are.
    """
    record = folder / ".written.json"
    written: dict[str, str] = json.loads(record.read_text()) if record.is_file() else {}
    kept = []
    for address, page in pages.items():
        copy = folder / f"{address}.ipynb"
        if copy.is_file() and _digest(copy.read_text()) != written.get(address):
            kept.append(address)
            continue
        text = nbformat.writes(_readable(page))
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
        written[address] = _digest(text)
        record.write_text(json.dumps(written, indent=1))
    return kept


def _readable(page: Page) -> NotebookNode:
    """The page, with its outputs where they are measured, and shown code in place of include directives."""
    notebook = deepcopy(Store().get(page) or page.notebook)
    notebook.metadata.pop("shopfloor", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = _OWN_DIRECTIVES.sub("", cell.source)
            cell.source = _INCLUDE.sub(lambda match: _included(match, page.path.parent), text)
    return notebook


def _included(match: re.Match[str], folder: Path) -> str:
    path = (folder / match["path"]).resolve()
    text = path.read_text(encoding="utf-8")
    options = dict(_OPTION.findall(match["options"]))
    if "start-after" in options:
        text = text.split(options["start-after"], 1)[1].split("\n", 1)[1]
    if "end-before" in options:
        text = text.split(options["end-before"], 1)[0].rsplit("\n", 1)[0]
    return f"`{path.relative_to(material().root)}`\n\n```python\n{text}\n```"


def _run_jupyterlab(folder: Path, page: str) -> None:
    settings = [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        "--ServerApp.open_browser=False",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.extension_manager=readonly",
        "--ServerApp.allow_root=True",  # it listens on loopback and asks for its token
    ]
    runtime = material().state / "jupyter"
    preferences = runtime / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    preferences.parent.mkdir(parents=True, exist_ok=True)
    preferences.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # no request to another host
    environment = os.environ | {
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(runtime / "settings"),
    }
    command = [sys.executable, "-m", "jupyterlab", *settings]
    with start_child(command, log=material().state / "jupyterlab.log", env=environment) as lab:
        about = runtime / f"jpserver-{lab.pid}.json"
        wait_until_ready(lab, about.is_file, name="JupyterLab", timeout=60)
        server = json.loads(about.read_text())
        out.print(f"JupyterLab is open at {server['url']}lab/tree/{page}?token={server['token']}")
        out.print("Ctrl-C stops it.")
        while lab.poll() is None:
            time.sleep(0.2)
    raise UserError(f"JupyterLab ended by itself. Its log is {lab.log}\n{log_tail(lab.log)}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
