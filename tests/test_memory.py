"""Watching the memory of a process."""

import subprocess
import sys

import pytest

from shopfloor import memory
from shopfloor.memory import MEGABYTE, memory_of
from tests.helpers import wait_until

GROWS = """
import sys
print("ready", flush=True)
sys.stdin.readline()
block = bytearray(b"x") * (64 * 2**20)
print("grown", flush=True)
sys.stdin.readline()
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GROWS!r}])"


@pytest.mark.parametrize("code", [GROWS, PARENT], ids=["itself", "its child"])
def test_growth_is_seen(code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        with memory_of(process.pid) as seen:
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            wait_until(lambda: seen.growth > 60, message="the growth is not seen")
        process.stdin.write(b"\n")
    assert 60 < seen.growth < 100
    assert seen.seconds == sorted(seen.seconds)


def test_without_procfs_it_is_the_same() -> None:
    with subprocess.Popen([sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        assert abs(memory._by_ps(process.pid) - memory._resident(process.pid)) < MEGABYTE
        process.stdin.write(b"\n\n")


def test_a_process_that_is_not_there_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(ProcessLookupError), memory_of(process.pid):
        pass
