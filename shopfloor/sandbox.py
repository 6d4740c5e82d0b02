"""Runs code on data that nobody should trust, in a process that is thrown away.

The process has a folder and an environment of its own, and little time, memory for files and descriptors. It has the
rights of the user who runs it: it keeps accidents and lessons in, not an enemy.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20
PRELUDE = """
import resource, sys
for limit, most in ((resource.RLIMIT_CPU, 10), (resource.RLIMIT_FSIZE, 2**16), (resource.RLIMIT_NOFILE, 64)):
    resource.setrlimit(limit, (most, most))
sys.path[:0] = {path!r}
data = sys.stdin.buffer.read()
"""


@dataclass(frozen=True)
class Apart:
    """What became of a process.

    Attributes:
        files: the names of those that it left in its folder.
        printed: on standard output.
        error: the last line of standard error: of an exception its name and what it says.
    """

    files: tuple[str, ...]
    printed: str
    error: str


def apart(code: str, data: bytes = b"", *, path: tuple[str, ...] = ()) -> Apart:
    """Run Python code in a process of its own.

    Args:
        code: finds `data` in a variable of that name.
        data: any bytes.
        path: where it also looks for modules.

    Raises:
        subprocess.TimeoutExpired: it took too long, and was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [sys.executable, "-I", "-c", PRELUDE.format(path=list(path)) + code],
            input=data,
            capture_output=True,
            cwd=folder,
            env={},
            timeout=SECONDS,
            start_new_session=True,
            check=False,
        )
        files = tuple(sorted(file.name for file in Path(folder).iterdir()))
    complaint = ended.stderr.decode(errors="replace").strip().splitlines()
    return Apart(files, ended.stdout.decode(errors="replace"), complaint[-1] if complaint else "")
