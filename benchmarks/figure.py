"""What the benchmarks share: a figure beside its target, and commands timed in a copy of the kit."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what it is held to."""

    name: str
    measured: str
    target: str
    reference: str = ""


def seconds(root: Path, *command: str) -> float:
    """How long a Python command takes in the copy, which it must import instead of the original."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - began


def proportional_memory(*roots: psutil.Process) -> int:
    """Bytes that processes and all their descendants hold, shared pages counted once (PSS)."""
    total = 0
    for root in roots:
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it has ended since it was listed, and holds nothing
                total += int(process.memory_full_info().pss)
    return total
