"""The executed notebooks of pages that measure no time, run once more and compared with what the book shows."""

import subprocess
import sys

import pytest

from shopfloor.execution import notebook_pages
from shopfloor.paths import material


@pytest.mark.slow
@pytest.mark.book
@pytest.mark.xdist_group("notebooks")
def test_the_notebooks_show_the_same_again() -> None:
    # A page that measures time takes long, and most of what it shows differs: it has run once, when the book was built.
    notebooks = [f"_build/jupyter_execute/{page.name}.ipynb" for page in notebook_pages() if not page.is_timed]
    # One after another: nbval's kernels take TCP ports, for which kernels that start at the same moment can race.
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-cell-timeout=300", *notebooks]
    done = subprocess.run(command, cwd=material().root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
