"""Looks for what keeps the kit from working on this machine, and says how to mend it."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from shopfloor.errors import UserError
from shopfloor.paths import Material, material

OLDEST_PYTHON = (3, 11)
NEEDED_BYTES = 3 * 10**9
"""What the environment's caches, seed data in all sizes and the built book come to, with room to work."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Outcome(StrEnum):
    """How an examination ended."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """What an examination found.

    Attributes:
        name: what was looked at.
        outcome: good; a note, for what works in another way; or bad.
        said: what was found.
        mend: what to do about it; empty when it is good.
    """

    name: str
    outcome: Outcome
    said: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at everything, in the order in which it matters."""
    place = material()
    examinations: list[Callable[[], Finding]] = [
        python,
        user,
        lambda: permissions(place),
        lambda: disk(place),
        lambda: mount(place),
        ports,
        lambda: watching(place),
        services,
        browser,
    ]
    return [examination() for examination in examinations]


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """The interpreter's version."""
    said = f"Python {'.'.join(map(str, version))} at {sys.executable}"
    if version < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", Outcome.BAD, said, f"Install Python {needed} or newer, then: make start")
    return Finding("Python", Outcome.GOOD, said)


def user(number: int | None = None) -> Finding:
    """Who runs the kit."""
    if (os.geteuid() if number is None else number) != 0:
        return Finding("User", Outcome.GOOD, "an ordinary user")
    return Finding(
        "User",
        Outcome.NOTE,
        "root. PostgreSQL then runs as another user, and your files belong to root.",
        "Work as an ordinary user, in a copy of the kit that is theirs.",
    )


def permissions(place: Material) -> Finding:
    """Whether the kit can write where it must."""
    for folder in (place.root, place.state, place.root / "workspace", place.build):
        if not folder.exists():
            continue
        stranger = next((path for path in (folder, *folder.glob("*")) if not os.access(path, os.W_OK)), None)
        if stranger:
            return Finding(
                "Permissions",
                Outcome.BAD,
                f"{stranger} cannot be written. Was a command run with sudo?",
                f"Make it yours again: sudo chown -R $(id -u) {folder}",
            )
    return Finding("Permissions", Outcome.GOOD, f"{place.root} can be written")


def disk(place: Material, free: int | None = None) -> Finding:
    """Whether there is room."""
    free = shutil.disk_usage(place.root).free if free is None else free
    said = f"{free / 10**9:,.1f} GB free"
    if free >= NEEDED_BYTES:
        return Finding("Disk", Outcome.GOOD, said)
    return Finding(
        "Disk", Outcome.BAD, said, f"Free at least {NEEDED_BYTES / 10**9:.0f} GB on the disk of {place.root}."
    )


def mount(place: Material, release: str = platform.release()) -> Finding:
    """Whether the copy lies on a Windows disk, seen from WSL."""
    is_wsl = "microsoft" in release.lower()
    parts = place.root.parts
    if is_wsl and len(parts) > 2 and parts[1] == "mnt" and len(parts[2]) == 1:
        return Finding(
            "File system",
            Outcome.BAD,
            f"{place.root} is on a Windows disk: slow, and without modes that PostgreSQL insists on.",
            "Clone the kit into your home folder inside WSL, such as ~/shopfloor. Your editor finds it under \\\\wsl$.",
        )
    return Finding("File system", Outcome.GOOD, "inside WSL" if is_wsl else platform.system())


def ports() -> Finding:
    """Whether programs can reach each other on the loopback interface."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname(), timeout=2) as asking,
        ):
            answering, _ = listener.accept()
            with answering:
                asking.sendall(b"?")
                answering.settimeout(2)
                if answering.recv(1) == b"?":
                    return Finding("Loopback", Outcome.GOOD, "free ports can be opened and reached on 127.0.0.1")
    except OSError as error:
        said = f"127.0.0.1 does not work: {error}"
    else:
        said = "127.0.0.1 swallows what is sent"
    return Finding(
        "Loopback", Outcome.BAD, said, "Let your firewall allow connections on the interface lo, or: ip link set lo up"
    )


def watching(place: Material) -> Finding:
    """Whether the system tells of saved files."""
    from shopfloor.saves import FORCE_POLLING, POLL_SECONDS, events_arrive  # noqa: PLC0415 - may itself be broken

    folder = place.root / "workspace" / ".shopfloor"
    folder = folder if folder.is_dir() else place.root
    if os.environ.get(FORCE_POLLING):
        said, mend = f"{FORCE_POLLING} is set", f"To have events again: unset {FORCE_POLLING}"
    elif events_arrive(folder):
        return Finding("Watching", Outcome.GOOD, "the system tells of saved files")
    else:
        said = f"the system does not tell of saved files in {folder}"
        mend = "Nothing needs doing. If your editor watches files as well, raise fs.inotify.max_user_watches."
    return Finding("Watching", Outcome.NOTE, f"{said}; they are looked at every {POLL_SECONDS} s instead", mend)


def services() -> Finding:
    """Whether the services start, or run already."""
    from shopfloor.services import running_services  # noqa: PLC0415 - may itself be broken

    given = [name for name in ("DATABASE_URL", "REDIS_URL") if os.environ.get(name)]
    source = f" ({' and '.join(given)} from the environment)" if given else ""
    try:
        with running_services() as running:
            versions = " and ".join(f"{name} {version}" for name, version in running.versions.items())
            return Finding("Services", Outcome.GOOD, f"{versions} answer{source}")
    except UserError as error:
        mend = f"Mend what is said above, or: unset {' '.join(given)}" if given else "Mend what is said above."
        return Finding("Services", Outcome.BAD, f"they do not start{source}. {error}", mend)


def browser(which: Callable[[str], str | None] = shutil.which) -> Finding:
    """Whether there is a browser that the kit's own tests can drive."""
    found = next((path for name in BROWSERS if (path := which(name))), None)
    if found:
        return Finding("Chromium", Outcome.GOOD, found)
    return Finding(
        "Chromium",
        Outcome.NOTE,
        "not there. Only the kit's own tests need it; the book opens in any browser.",
        "To run those tests as well, install your system's package chromium.",
    )


def run() -> int:
    """Print what was found, and what to do; return the exit code."""
    from shopfloor.words import counted, tell  # noqa: PLC0415 - as above

    findings = examine()
    for finding in findings:
        tell(f"{finding.name}: {finding.outcome}. {finding.said}")
        if finding.mend:
            tell(finding.mend, indent="    ")
    bad = sum(finding.outcome is Outcome.BAD for finding in findings)
    tell(f"{counted(bad, 'thing')} to mend." if bad else "Nothing to mend.")
    return 1 if bad else 0
