"""The program that runs the suite."""

import os
import signal
import subprocess
import sys

import pytest

from shopfloor.paths import material

# As `tests/run.py`, with one lane of one command, which says that it has begun, and takes a moment to end what it has.
ONE_LANE = """
import sys
from tests import run
run.LINT = ((sys.executable, "-c", sys.argv[1]),)
run.TESTS = (sys.executable, "-c", "print('another lane', flush=True)")
sys.argv[1:] = ["--quick"]
sys.exit(run.main())
"""
LANE = """
import time
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.6)  # longer than subprocess.run would wait
    print("ended what it had", flush=True)
"""


@pytest.mark.slow
def test_an_interrupted_lane_ends_what_it_has_started() -> None:
    root = material().root
    command = [sys.executable, "-c", ONE_LANE, LANE]
    with subprocess.Popen(command, cwd=root, stdout=-1, stderr=-1, text=True, process_group=0) as suite:
        assert suite.stdout
        while "begun" not in suite.stdout.readline():
            pass
        os.killpg(suite.pid, signal.SIGINT)  # as a terminal does
        output, errors = suite.communicate(timeout=30)
    assert output.endswith("ended what it had\n\nInterrupted.\n")
    assert (suite.returncode, errors) == (130, "")
