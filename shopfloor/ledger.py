"""The ledger: every claim of the book, read out of the executed notebooks.

It is derived, never written by hand: whoever has the executed pages has the ledger.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from shopfloor.claims import MIME_TYPE
from shopfloor.paths import material


def ledger_path() -> Path:
    """Where the build keeps the ledger for Sphinx and for the tests."""
    return material().build / "ledger.json"


def claims_of(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """The records of all claims in an executed notebook, in the order of the page."""
    return [
        dict(output["data"][MIME_TYPE])
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if MIME_TYPE in output.get("data", {})
    ]


def page_entry(notebook: nbformat.NotebookNode | None) -> dict[str, Any]:
    """What the ledger says of one page; `None` is a page that has not been executed."""
    if notebook is None:
        return {"executed": False, "key": "", "provenance": None, "claims": []}
    about = notebook.metadata["shopfloor"]
    return {
        "executed": True,
        "key": about["key"],
        "provenance": about["provenance"],
        "claims": claims_of(notebook),
    }


def write(pages: Mapping[str, nbformat.NotebookNode | None], path: Path | None = None) -> Path:
    """Write the ledger of `pages` (name to executed notebook) at once, or not at all."""
    target = path or ledger_path()
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"pages": {name: page_entry(notebook) for name, notebook in pages.items()}}, indent=1)
    if target.exists() and target.read_text() == text:
        return target
    descriptor, partial = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(partial).replace(target)
    return target
