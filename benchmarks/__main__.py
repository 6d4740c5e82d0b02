"""Measure the kit's own figures and print each beside its target and its reference.

It works in a copy of the working copy, so that a cold build is cold and nothing here is disturbed.
What the chapters measure (an index's effect, N+1's) is read out of the ledger of that very build.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from rich.table import Table

from benchmarks.figure import Figure, proportional_memory, seconds
from benchmarks.labs import lab_figures
from shopfloor.console import out, step
from shopfloor.databases import Size, ensure_template
from shopfloor.measure import machine_is_busy
from shopfloor.paths import material
from shopfloor.services import Services, running_services

NOT_COPIED = (".venv", ".git", ".shopfloor", "_build", "workspace", "*_cache", ".hypothesis")
SIZES: tuple[Size, ...] = ("small", "lab", "medium", "large")

CHAPTER_FIGURES = {
    "index: a customer's history on large, blocks": (
        "book/data/indexing",
        "in-the-shop-with-a-million-orders-the",
        "at least 100×",
    ),
    "index: the same under Locust, throughput": (
        "book/data/indexing",
        "with-the-indexes-the-same-users-get-this",
        "at least 10×",
    ),
    "N+1: statements for a page of 50, naive": (
        "book/data/n_plus_one",
        "the-page-costs-one-query-and-one-for",
        "101 or more",
    ),
    "N+1: statements for a page of 50, solved": (
        "book/data/n_plus_one",
        "for-the-same-fifty-orders-it-sends",
        "at most 3",
    ),
    "N+1: the same under Locust, throughput": (
        "book/data/n_plus_one",
        "under-load-the-solved-shop-answers-several-times",
        "at least 3×",
    ),
    "orders page: hand-written SQL and orjson against the solved one": (
        "book/data/n_plus_one",
        "by-hand-and-with-orjson-a-thread-makes",
        "stated",
    ),
}


@contextmanager
def copy_of_the_kit() -> Iterator[Path]:
    """A copy of the working copy, without anything that was made in it."""
    with tempfile.TemporaryDirectory(prefix="shopfloor-bench-") as folder:
        root = Path(folder) / "kit"
        shutil.copytree(material().root, root, ignore=shutil.ignore_patterns(*NOT_COPIED))
        yield root


def make_cold(root: Path) -> None:
    """Forget every executed page and everything built; seed data and services stay, for both sides alike."""
    shutil.rmtree(root / "_build", ignore_errors=True)
    shutil.rmtree(root / ".shopfloor" / "executed", ignore_errors=True)


def build_figures(root: Path) -> list[Figure]:
    """Cold builds, ours and Jupyter Book's own, and rebuilds."""
    jupyter_book = ("-c", "from jupyter_book.cli.main import main; main()", "build", str(root), "--quiet")
    make_cold(root)
    reference = seconds(root, *jupyter_book)
    make_cold(root)
    cold = seconds(root, "-m", "shopfloor", "book")
    unchanged = seconds(root, "-m", "shopfloor", "book")
    chapter = root / "book/data/n_plus_one.md"
    chapter.write_text(chapter.read_text() + "\nOne more sentence.\n")
    sentence = seconds(root, "-m", "shopfloor", "book")
    return [
        Figure("cold execution and build", f"{cold:.0f} s", "no slower", f"jupyter-book build: {reference:.0f} s"),
        Figure("rebuild, nothing changed", f"{unchanged:.1f} s", "at most 3 s"),
        Figure("rebuild, one sentence changed", f"{sentence:.1f} s", "at most 4 s"),
    ]


def chapter_figures(root: Path) -> list[Figure]:
    """What the chapters claimed in the build just made."""
    pages = json.loads((root / "_build/ledger.json").read_text())["pages"]
    claims = {(page, claim["id"]): claim["display"] for page, entry in pages.items() for claim in entry["claims"]}
    return [Figure(name, claims[page, id_], target) for name, (page, id_, target) in CHAPTER_FIGURES.items()]


def idle_memory(services: Services) -> Figure:
    """What both servers and their watchdogs hold, shared pages counted once (PSS)."""
    if not services.owned:
        sys.exit("The benchmark's services were started by another process.")
    processes = psutil.Process().children()
    return Figure("idle memory of both services", f"{proportional_memory(*processes) / 2**20:.0f} MB", "at most 120 MB")


def main() -> None:
    """Measure everything and print one table."""
    busy = machine_is_busy()
    with copy_of_the_kit() as root, running_services(root / ".shopfloor") as services:
        memory = idle_memory(services)
        with step("Seed data") as say:
            for size in SIZES:
                ensure_template(services, size, progress=say)
        with step("Cold builds and rebuilds, some minutes"):
            figures = build_figures(root)
        figures += [*chapter_figures(root), memory]
        with step("The learner's loop, and the gate"):
            figures += lab_figures(root, services)
    table = Table("figure", "measured", "target", "reference")
    for figure in figures:
        table.add_row(figure.name, figure.measured, figure.target, figure.reference)
    out.print(table)
    if busy:
        out.print("The machine was busy with something else when this began.")


if __name__ == "__main__":
    main()
