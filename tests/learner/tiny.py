"""A copy of the kit with two labs of a few lines each, so that these tests stand whatever the real labs say."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect

from shopfloor.paths import material
from shopfloor.workspace import Workspace
from tests.kit import copy_kit

LAB = """
title = "{title}"
minutes = 5
read = []
data = "small"
covers = []
hints = ["Look.", "Look closer.", "Do it."]
load_data = "SELECT public_id FROM customers ORDER BY id LIMIT 20"

[load]
seconds = 2
"""

INDEXES = '''
"""Checks of the tiny lab `data/indexing`."""

from shopfloor.checks.say import differs


def test_an_index_is_declared(declared: list[str]) -> None:
    """The file declares an index."""
    if not declared:
        differs(did="read INDEXES", got="nothing", expected="an index", matters="Every query reads the whole table.")
'''

STATEMENTS = '''
"""Checks of the tiny lab `data/n_plus_one`."""

from shopfloor.checks.say import differs


def test_few_statements(shop) -> None:
    """A page takes few statements."""
    answer = shop.get("/v1/orders", limit=20)
    if answer.status != 200 or len(answer.statements) > 5:
        differs(did=answer.did, got=f"{len(answer.statements)} statements", expected="five", matters="Each is a trip.")
'''

LOAD = """
from locust import FastHttpUser, task


class User(FastHttpUser):
    @task
    def orders(self):
        self.client.get("/v1/orders?limit=5")
"""

CHECKS = {"data/indexing": INDEXES, "data/n_plus_one": STATEMENTS}
ANSWERS = {
    "data/indexing": "INDEXES = ('CREATE INDEX orders_customer ON orders (customer_id)',)\n",
    "data/n_plus_one": (material().solutions / "shop/data/n_plus_one.py").read_text(),
}


def tiny_kit(target: Path) -> Path:
    """Make it."""
    root = copy_kit(target)
    for lab in root.glob("labs/*/*/lab.toml"):
        shutil.rmtree(lab.parent)
    for address, checks in CHECKS.items():
        folder = root / "labs" / address
        folder.mkdir(parents=True)
        (folder / "lab.toml").write_text(LAB.format(title=f"A tiny lab on {folder.name}"))
        (folder / f"test_{folder.name}.py").write_text(checks)
        (folder / "load.py").write_text(LOAD)
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    (root / "book" / "index.md").write_text("# A tiny book\n\nOf one page.\n")
    return root


def new_checks(root: Path, address: str) -> None:
    """Let a lab have a new version of its checks."""
    name = address.rpartition("/")[2]
    path = root / "labs" / address / f"test_{name}.py"
    path.write_text(f"{CHECKS[address]}\n# version {path.stat().st_mtime_ns}\n")


class Kit:
    """A tiny kit, and its commands run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {"PYTHONPATH": str(root), "NO_COLOR": "1", "COLUMNS": "80", "TERM": "dumb"}
        self.environment.pop("DATABASE_URL", None)
        self.environment.pop("REDIS_URL", None)

    def make(self) -> None:
        """Make the workspace, as `start` does."""
        Workspace(self.root / "workspace", self.root / "labs" / "shop").make()

    def file(self, address: str) -> Path:
        """The learner's answer."""
        return self.root / "workspace" / "shop" / f"{address}.py"

    def solve(self, address: str) -> None:
        """Put a right answer there."""
        self.file(address).write_text(ANSWERS[address])

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, without a terminal."""
        return subprocess.run(
            [sys.executable, "-m", "shopfloor", *arguments],
            cwd=self.root,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @contextmanager
    def terminal(self, *arguments: str) -> Iterator["pexpect.spawn[str]"]:
        """Run a command on a terminal of 80 columns while the block runs."""
        terminal = pexpect.spawn(
            sys.executable,
            ["-m", "shopfloor", *arguments],
            cwd=self.root,
            env=self.environment,
            dimensions=(40, 80),
            timeout=60,
            encoding="utf-8",
        )
        try:
            yield terminal
        finally:
            terminal.close(force=True)
