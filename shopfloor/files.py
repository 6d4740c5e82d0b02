"""Files that must not be lost: each is written whole or not at all, and is on the disk before the next step."""

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

PARTIAL = ".shopfloor-partial"
"""How the name of a file ends that is still being written; one that a killed process left is rubbish."""


def write(path: Path, content: bytes) -> None:
    """Put `content` in place of whatever is at `path`, whole or not at all."""
    partial = _write_beside(path, content)
    _rename(partial, path)


def replace(path: Path, seen: bytes | None, content: bytes) -> bool:
    """Put `content` in place of what was `seen` at `path`, unless it is something else by now.

    The comparison is the last thing before the rename, so that a save meanwhile is not written over.

    Args:
        path: of the file.
        seen: what it held; None when there was none.
        content: what it is to hold.

    Returns:
        Whether it was done.
    """
    partial = _write_beside(path, content)
    if read(path) != seen:
        partial.unlink()
        return False
    _rename(partial, path)
    return True


def read(path: Path) -> bytes | None:
    """What a file holds; None when there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def tree(folder: Path) -> dict[str, bytes]:
    """What the files below a folder hold, by their path in it, without what Python and killed processes leave."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in sorted(found.items())
        if "__pycache__" not in path.parts and not name.endswith(PARTIAL)
    }


def write_tree(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files of a folder that nobody uses yet."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(path, content)
    for made in {folder, *(folder / name for name in contents)}:
        flush_folder(made if made.is_dir() else made.parent)


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left half written below a folder."""
    for path in folder.rglob(f"*{PARTIAL}"):
        path.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """See to it that the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems refuse it for folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_beside(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        _write_new(partial, content)
        if path.exists():
            shutil.copymode(path, partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _rename(partial: Path, path: Path) -> None:
    try:
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)
