"""Where a working copy's servers keep their files, and which user they run as.

PostgreSQL refuses to run as root, and nothing should. So when the owner is root, the servers run as the user whose
working copy it is or, when that is root too, as `nobody`. That user may be unable to reach the working copy (one
under /root, say). No folder on the way is opened up for it: data and programs then go to a folder of their own under
/var/tmp.
"""

import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from shopfloor.errors import UserError
from shopfloor.services.process import Identity

READ, EXECUTE = 4, 1


@dataclass(frozen=True)
class Place:
    """What the servers of one working copy have in common.

    Attributes:
        home: holds their data; the state folder, unless their user cannot reach that.
        logs: holds a log for each server.
        identity: who they run as; None for the owner's own identity.
        lock: the descriptor that their watchdogs keep open until they are gone.
    """

    home: Path
    logs: Path
    identity: Identity | None
    lock: int

    def make_folder(self, path: Path) -> None:
        """Make a folder that the servers alone may read, unless it is there."""
        path.mkdir(mode=0o700, exist_ok=True)
        self.give(path)

    def give(self, path: Path) -> None:
        """Make the servers' user the owner of a file or folder."""
        if self.identity:
            os.chown(path, self.identity.uid, self.identity.gid)

    def reachable_copy(self, programs: Path, parts: Sequence[str]) -> Path:
        """A folder with the same programs as `programs` that the servers' user can reach.

        Args:
            programs: the folder that `parts` are relative to.
            parts: the files and folders needed, at the same place in the copy; the first decides whether the user
                can reach all of them.
        """
        first = (programs / parts[0]).resolve()
        if self.identity is None or reachable(first, self.identity):
            return programs
        facts = first.stat()
        fingerprint = hashlib.sha256(f"{first} {facts.st_size} {facts.st_mtime_ns} {parts}".encode()).hexdigest()[:12]
        target = self.home / f"programs-{fingerprint}"
        if not target.exists():
            partial = self.home / f"programs-{fingerprint}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            for part in parts:
                copy_open(programs, Path(part), partial)
            partial.rename(target)
        return target


def find_place(state: Path, lock: int) -> Place:
    """Decide where the servers of a working copy live, and make their folders.

    Raises:
        UserError: the folder under /var/tmp exists, but is not safe to use.
    """
    identity = server_identity(state)
    home = state if identity is None or reachable(state, identity) else outside_home(state)
    logs = state / "logs"
    logs.mkdir(exist_ok=True)
    return Place(home=home, logs=logs, identity=identity, lock=lock)


def server_identity(state: Path) -> Identity | None:
    """Who the servers run as, or None when it is simply the present user.

    Raises:
        UserError: only root is left to run them.
    """
    if os.geteuid() != 0:
        return None
    owner = state.parent.stat()
    if owner.st_uid != 0:
        return Identity(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise UserError(
            "PostgreSQL does not run as root, and this system has no user `nobody`. "
            "Run Shopfloor as an ordinary user, or set DATABASE_URL to a running server."
        ) from None
    return Identity(nobody.pw_uid, nobody.pw_gid)


def reachable(path: Path, identity: Identity) -> bool:
    """Whether `identity` may enter every folder on the way to `path`, and read and enter (or execute) `path`."""
    path = path.resolve()
    return allows(path, identity, READ | EXECUTE) and all(
        allows(on_the_way, identity, EXECUTE) for on_the_way in path.parents
    )


def allows(path: Path, identity: Identity, wanted: int) -> bool:
    """Whether the mode of `path` grants `identity` the bits of `wanted` (access control lists are not looked at)."""
    facts = path.stat()
    shift = 6 if facts.st_uid == identity.uid else 3 if facts.st_gid == identity.gid else 0
    return facts.st_mode >> shift & wanted == wanted


def outside_home(state: Path, parent: Path = Path("/var/tmp")) -> Path:  # noqa: S108 - checked below, and it lasts
    """A folder outside the working copy for the servers of `state`, readable to all and writable to this user alone.

    Raises:
        UserError: someone else made it first.
    """
    clear_outside_homes(parent)
    home = parent / f"shopfloor-{hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]}"
    home.mkdir(mode=0o755, exist_ok=True)
    facts = home.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise UserError(f"{home} was not made by Shopfloor, or others may write to it. Look into it, then remove it.")
    home.chmod(0o755)  # whatever the umask took away
    (home / "state").write_text(str(state.resolve()))
    return home


def clear_outside_homes(parent: Path) -> None:
    """Remove such folders of working copies that no longer exist."""
    for home in parent.glob("shopfloor-*"):
        note = home / "state"
        with suppress(FileNotFoundError):  # another process clears at the same time
            ours = home.lstat().st_uid == os.geteuid() and note.is_file()
            if ours and not Path(note.read_text()).exists() and not processes_in(home):
                shutil.rmtree(home, ignore_errors=True)


def processes_in(folder: Path, *, named: tuple[str, ...] = ("",)) -> list[psutil.Process]:
    """The processes whose working directory is inside `folder`, as far as this user may know them.

    Args:
        folder: looked for.
        named: what a process's name may begin with.

    Returns:
        Processes with what is known of them, `cwd`, `name` and `uids`, in `info`: asked later, they may be gone.
    """
    folder = folder.resolve()
    return [
        process
        for process in psutil.process_iter(["cwd", "name", "uids"])
        if process.info["cwd"]
        and Path(process.info["cwd"]).is_relative_to(folder)
        and (process.info["name"] or "").startswith(named)
    ]


def copy_open(source: Path, part: Path, target: Path) -> None:
    """Copy one file or folder, and the folders above it, readable to all; by hard links where that is possible."""
    for folder in (*reversed(part.parents), *([part] if (source / part).is_dir() else [])):
        (target / folder).mkdir(exist_ok=True)
        (target / folder).chmod(0o755)
    if (source / part).is_dir():
        for child in (source / part).iterdir():
            copy_open(source, child.relative_to(source), target)
        return
    mode = (source / part).stat().st_mode
    try:
        if not mode & 0o004:
            raise PermissionError  # a link would have this mode, too
        (target / part).hardlink_to((source / part).resolve())
    except OSError:  # or another file system
        shutil.copyfile(source / part, target / part)
        (target / part).chmod(0o755 if mode & 0o100 else 0o644)
