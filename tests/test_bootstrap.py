"""`make` on machines that lack something: each gets told what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shopfloor.paths import material


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A working copy with what the bootstrap reads, and nothing else."""
    root = tmp_path / "copy with a space"
    (root / "tools").mkdir(parents=True)
    shutil.copy(material().root / "tools/bootstrap.py", root / "tools")
    for name in ("requirements.lock", "pyproject.toml"):
        (root / name).write_text("")
    return root


def bootstrap(copy: Path, *, before: str = "", path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the bootstrap of `copy`, after `before`, with only `path` to find programs in."""
    script = copy / "tools/bootstrap.py"
    code = f"{before}\nimport runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')"
    environment = {"PATH": str(path or copy), "HOME": os.environ["HOME"]}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_an_old_python_is_told_what_to_do(copy: Path) -> None:
    done = bootstrap(copy, before="import sys\nsys.version_info = (3, 9, 2, 'final', 0)")
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "is Python 3.9.2" in done.stderr
    assert "make start PYTHON=" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_venv_module_is_told_what_to_install(copy: Path) -> None:
    # Debian without python3-venv: `python -m venv` prints that ensurepip is not available, and fails.
    fake = copy / "fake"
    fake.mkdir()
    (fake / "venv.py").write_text("import sys\nsys.exit('ensurepip is not available')\n")
    done = bootstrap(copy, before=f"import os\nos.environ['PYTHONPATH'] = {str(fake)!r}")
    assert done.returncode == 1
    assert "ensurepip is not available" in done.stderr
    assert f"sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (copy / ".venv").exists()


def fake_uv(folder: Path, body: str) -> Path:
    folder.mkdir()
    program = folder / "uv"
    program.write_text(f'#!/bin/sh\necho "$@" >> {str(folder / "calls")!r}\n{body}\n')
    program.chmod(0o755)
    return folder


def test_uv_is_used_where_it_is_installed(copy: Path, tmp_path: Path) -> None:
    folder = fake_uv(tmp_path / "bin", f'[ "$1" = venv ] && /bin/mkdir -p "{copy}/.venv"; exit 0')
    done = bootstrap(copy, path=folder)
    assert done.returncode == 0, done.stderr
    calls = (folder / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["venv", "pip", "pip"]
    assert "--require-hashes" in calls[1]
    assert bootstrap(copy, path=folder).stdout == "", "what is installed was installed again"
    (copy / "requirements.lock").write_text("# changed")
    assert "Environment: ready" in bootstrap(copy, path=folder).stdout


@pytest.mark.slow
def test_a_failing_installer_is_quoted_and_leaves_nothing_that_looks_done(copy: Path) -> None:
    (copy / "requirements.lock").write_text("no-such-package-here==1 --hash=sha256:" + "0" * 64)
    done = bootstrap(copy, before="import os\nos.environ['PIP_NO_INDEX'] = '1'")
    assert done.returncode == 1
    assert "no-such-package-here" in done.stderr
    assert "could not be installed" in done.stderr
    assert not (copy / ".venv" / "installed").exists()


def test_the_lock_names_every_dependency_with_hashes_and_no_registry() -> None:
    lock = (material().root / "requirements.lock").read_text()
    requirements = [line for line in lock.splitlines() if line and line[0].isalnum()]
    assert len(requirements) > 100
    assert all("==" in line and line.endswith("\\") for line in requirements), "a requirement without a hash"
    assert "://" not in lock
    assert "--index" not in lock.replace("--no-emit-index-url", "")
