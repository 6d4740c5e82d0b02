"""The learner's folder: made, reset and updated without losing a line of theirs.

`workspace/shop` is theirs. What the kit needs to know is in `workspace/.shopfloor`:

- `base/shop`: what the kit delivered last, the common ancestor of a merge;
- `kept/<date-time>/shop`: copies of what a command replaced;
- `offered/<date-time>/shop`: the kit's new files that could not be merged into the learner's.
"""

import fcntl
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from shopfloor import files
from shopfloor.errors import UserError
from shopfloor.paths import material


class Kind(StrEnum):
    """What an update did with a file."""

    ADDED = "new in the kit, added"
    UPDATED = "you had not changed it; it is the kit's new one now"
    MERGED = "the kit's changes are merged into yours"
    REMOVED = "no longer in the kit; you had not changed it, so it was removed"
    STAYS = "no longer in the kit; yours stays"
    OFFERED = "yours stays as it is"


@dataclass(frozen=True)
class Outcome:
    """What an update did with one file.

    Attributes:
        name: of the file, such as `data/indexing.py`.
        kind: what was done.
        why: why the kit's new file is offered beside it and not put in place; else empty.
        copy: what was kept of the learner's, or the kit's file that is offered.
    """

    name: str
    kind: Kind
    why: str = ""
    copy: Path | None = None


class Workspace:
    """A learner's folder.

    Args:
        folder: holds it.
        kit: the shop as the kit delivers it at present.
    """

    def __init__(self, folder: Path, kit: Path) -> None:
        self.folder = folder
        self.kit = kit
        self.shop = folder / "shop"
        self.state = folder / ".shopfloor"
        self.base = self.state / "base" / "shop"

    def file(self, name: str) -> Path:
        """Where the learner's file of that name is, or should be."""
        return self.shop / name

    def make(self) -> bool:
        """Copy the shop for the learner, whole or not at all, unless there is one.

        Returns:
            Whether it was made.

        Raises:
            UserError: it cannot be written.
        """
        with self.exclusive():
            if self.shop.exists():
                return False
            making = self.state / "making"
            contents = files.tree(self.kit)
            files.write_tree(making / "base" / "shop", contents)
            files.write_tree(making / "shop", contents)
            if self.base.parent.exists():  # of a shop that the learner deleted, or that was not made to the end
                self.base.parent.rename(making / "old")
            (making / "base").rename(self.base.parent)
            files.flush_folder(self.state)
            (making / "shop").rename(self.shop)
            files.flush_folder(self.folder)
            self._sweep()
            return True

    def put(self, name: str, content: bytes) -> Path | None:
        """Put `content` in place of a file of the learner's.

        Returns:
            The copy kept of what was there; None when there was nothing else.

        Raises:
            UserError: it cannot be written.
        """
        with self.exclusive():
            return self._put(name, content, _Dated(self.state / "kept"))

    def reset(self, name: str) -> Path | None:
        """Put the kit's file in place of the learner's; as `put`."""
        with self.exclusive():
            content = (self.kit / name).read_bytes()
            kept = self._put(name, content, _Dated(self.state / "kept"))
            files.write(self.base / name, content)
            return kept

    def copies(self, name: str) -> list[Path]:
        """The kept copies of a file, oldest first."""
        return sorted((self.state / "kept").glob(f"*/shop/{name}"))

    def outdated(self) -> list[str]:
        """The files that the kit has changed since it delivered them last."""
        if not self.shop.exists():
            return []
        base, new = files.tree(self.base), files.tree(self.kit)
        return sorted(name for name in base | new if base.get(name) != new.get(name))

    def update(self) -> list[Outcome]:
        """Bring the kit's changes into the learner's files, by a three-way merge.

        Returns:
            What was done, a file each; nothing for a file that the kit did not change.

        Raises:
            UserError: a file cannot be written. What was done until then stays, and the next update goes on.
        """
        with self.exclusive():
            new = files.tree(self.kit)
            base = files.tree(self.base)
            kept, offered = _Dated(self.state / "kept"), _Dated(self.state / "offered")
            outcomes = []
            for name in sorted(base | new):
                if base.get(name) == new.get(name):
                    continue
                if name in new:
                    outcome = self._bring(name, base.get(name), new[name], kept, offered)
                    files.write(self.base / name, new[name])
                else:
                    outcome = self._withdraw(name, base[name], kept)
                    (self.base / name).unlink()
                outcomes += [outcome] if outcome else []
            return outcomes

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock of this folder: two commands at once would write into each other's files.

        Raises:
            UserError: the system refuses what is done meanwhile.
        """
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            with (self.state / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._sweep()
                yield
        except OSError as error:
            raise UserError(
                f"{error.filename or self.folder}: {error.strerror or error}. No line of yours was lost. "
                "Look for the cause with: shopfloor doctor"
            ) from error

    def _sweep(self) -> None:
        """Remove what killed commands left unfinished."""
        files.remove_partial(self.shop)
        files.remove_partial(self.state)
        shutil.rmtree(self.state / "making", ignore_errors=True)

    def _put(self, name: str, content: bytes, kept: "_Dated") -> Path | None:
        path, copy = self.file(name), None
        while (seen := files.read(path)) != content:
            copy = kept.write(name, seen) if seen is not None else copy
            if files.replace(path, seen, content):
                break  # else it was saved meanwhile, and that is kept as well
        return copy

    def _bring(self, name: str, base: bytes | None, new: bytes, kept: "_Dated", offered: "_Dated") -> Outcome | None:
        """Bring the kit's new content of a file to the learner."""
        path = self.file(name)
        while True:
            blocked = self._in_the_way(path)
            mine = None if blocked else files.read(path)
            content, why = (None, blocked) if blocked else decide(base, mine, new)
            if content is None:
                return Outcome(name, Kind.OFFERED, why, offered.write(name, new))
            if content == mine:
                return None  # the learner has made the same changes
            copy = None if mine is None or mine == base else kept.write(name, mine)
            if files.replace(path, mine, content):
                kind = Kind.ADDED if mine is None else Kind.UPDATED if mine == base else Kind.MERGED
                return Outcome(name, kind, copy=copy)  # else it was saved meanwhile

    def _withdraw(self, name: str, base: bytes, kept: "_Dated") -> Outcome | None:
        """Take away a file that the kit has no longer, unless it is the learner's by now."""
        path = self.file(name)
        if self._in_the_way(path) or (mine := files.read(path)) is None:
            return None
        if mine != base:
            return Outcome(name, Kind.STAYS)
        return Outcome(name, Kind.REMOVED, copy=kept.take(name, path))

    def _in_the_way(self, path: Path) -> str:
        """Why no file can be at `path`, in words; empty when one can."""
        if path.is_dir():
            return "you have a folder of that name"
        above = [folder for folder in path.parents if folder.is_relative_to(self.shop)]
        return "you have a file where its folder would be" if any(folder.is_file() for folder in above) else ""


def decide(base: bytes | None, mine: bytes | None, new: bytes) -> tuple[bytes | None, str]:
    """What the learner's file is to hold, when the kit's changes from `base` to `new`; as `merge`."""
    if mine is None:
        return (new, "") if base is None else (None, "you deleted the file")
    if mine in (base, new):
        return new, ""
    return merge(base, mine, new)


def merge(base: bytes | None, mine: bytes, new: bytes) -> tuple[bytes | None, str]:
    """Merge the kit's changes from `base` to `new` into `mine`.

    Returns:
        The merged content; or None and why there is none: the changes meet, or Python could no longer read it.
    """
    if base is None:
        return None, "you have a file of your own by that name"
    if b"\r\n" in mine and b"\r\n" not in base:  # the learner's editor writes line ends of its own
        base, new = (text.replace(b"\n", b"\r\n") for text in (base, new))
    git = shutil.which("git")
    if git is None:
        return None, "both were changed, and there is no git here to merge them"
    merged = _merged_by(git, base, mine, new)
    if merged is None:
        return None, "you and the kit changed the same lines"
    if compiles(mine) and not compiles(merged):
        return None, "with the kit's changes in it Python could not read it"
    return merged, ""


def _merged_by(git: str, base: bytes, mine: bytes, new: bytes) -> bytes | None:
    """What `git merge-file` makes of three versions; None when changes meet. It needs no repository."""
    with tempfile.TemporaryDirectory() as folder:
        versions = [Path(folder, name) for name in ("mine", "base", "new")]
        for path, content in zip(versions, (mine, base, new), strict=True):
            path.write_bytes(content)
        done = subprocess.run([git, "merge-file", "-p", "-q", *versions], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def compiles(content: bytes) -> bool:
    """Whether Python can read a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(content, "<learner>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class _Dated:
    """A folder named by the present moment, made when the first file is put into it; no file is written over."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._folder: Path | None = None

    def write(self, name: str, content: bytes) -> Path:
        """Keep `content` under the name of a file."""
        path = self._place(name)
        files.write(path, content)
        return path

    def take(self, name: str, source: Path) -> Path:
        """Keep a file by moving it: whatever it holds at that moment is kept."""
        path = self._place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        source.rename(path)
        files.flush_folder(path.parent)
        return path

    def _place(self, name: str) -> Path:
        if self._folder is None or (self._folder / "shop" / name).exists():
            self._folder = self._make()
        return self._folder / "shop" / name

    def _make(self) -> Path:
        self._parent.mkdir(parents=True, exist_ok=True)
        moment = datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
        number = 1
        while True:
            folder = self._parent / (moment if number == 1 else f"{moment}.{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                files.flush_folder(self._parent)
                return folder


def workspace() -> Workspace:
    """The folder of this working copy's learner."""
    return Workspace(material().root / "workspace", material().labs / "shop")
