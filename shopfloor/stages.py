"""Stages: the shop with some topics solved, in a folder of its own, and served as in production.

A stage is `labs/shop` with solution files laid over it. Its folder is named by a digest of its content, so that it
is made once and never changes.
"""

import difflib
import hashlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shopfloor import dependencies
from shopfloor.errors import UserError
from shopfloor.paths import material
from shopfloor.services.process import start_child, wait_until_ready

START_TIMEOUT = 20.0
"""Seconds that a shop may take until it answers."""

INDEXES = "shop/data/indexing.py"
CREATE_INDEXES = """
import os
from shop.database import create_indexes, make_engine

with make_engine(os.environ["DATABASE_URL"]).begin() as connection:
    create_indexes(connection)
"""


HYPERCORN = ["hypercorn", "wsgi:shop:create_app()"]

EACH_WORKER_SAYS_SO = """
def post_worker_init(worker):
    with open({path!r}, "a") as ready:
        ready.write("1")
"""
"""gunicorn's configuration."""


@dataclass(frozen=True)
class Stage:
    """A shop on disk.

    Attributes:
        name: `naive`, `solved`, or the solved topics.
        path: the folder that holds its package `shop`.
        sources: the files that it was made of.
    """

    name: str
    path: Path
    sources: tuple[Path, ...]


@dataclass(frozen=True)
class Server:
    """A stage that answers requests.

    Attributes:
        url: where, without a slash at the end.
        stage: what it serves.
        pid: the server's process id.
        log: gets what it prints, while it runs.
    """

    url: str
    stage: Stage
    pid: int
    log: Path


def build(topics: Iterable[str] | Literal["naive", "solved"]) -> Stage:
    """Make a stage, or find it made.

    The running page is noted to depend on the files that it is made of.

    Args:
        topics: addresses of topics whose solution is laid over the naive shop, such as `["data/indexing"]`;
            `"naive"` for none and `"solved"` for all.

    Raises:
        UserError: there is no solution of a topic.
    """
    solutions = solved_topics()
    if isinstance(topics, str):
        if topics not in ("naive", "solved"):
            raise UserError(f'A stage is "naive", "solved" or a list of topics, not "{topics}": write ["{topics}"].')
        name, chosen = topics, set(solutions) if topics == "solved" else set()
    else:
        chosen = set(topics)
        name = "+".join(sorted(chosen)) or "naive"
    for topic in sorted(chosen - set(solutions)):
        raise UserError(_unknown(topic, solutions))
    files = _files(material().labs / "shop") | {f"{topic}.py": solutions[topic] for topic in chosen}
    dependencies.note(*files.values())
    contents = {name: path.read_bytes() for name, path in files.items()}
    return Stage(name, _materialise(contents), tuple(sorted(files.values())))


def build_with(files: Mapping[str, bytes]) -> Stage:
    """Make a stage of the naive shop with some topics' files replaced by a learner's.

    Args:
        files: the content of each file, by topic.
    """
    naive = {name: path.read_bytes() for name, path in _files(material().labs / "shop").items()}
    changed = {f"{topic}.py": content for topic, content in files.items()}
    return Stage("+".join(sorted(files)), _materialise(naive | changed), ())


def solved_topics() -> dict[str, Path]:
    """The topics that have a solution, by address, with its file."""
    return {name.removesuffix(".py"): path for name, path in _files(material().solutions / "shop").items()}


@contextmanager
def serve(
    stage: Stage,
    *,
    database_url: str,
    redis_url: str | None = None,
    settings: Mapping[str, str] | None = None,
    threads: int = 8,
    workers: int = 1,
    create_indexes: bool = True,
    http2: bool = False,
) -> Iterator[Server]:
    """Serve a stage with gunicorn on a free port of the loopback interface while the block runs.

    Args:
        stage: what `build` gives.
        database_url: the shop's database, with its tables.
        redis_url: its Redis protocol server, or None.
        settings: more of them, by the names of their environment variables, such as `{"PAYMENTS_URL": ...}`.
        threads: how many requests each worker answers at once.
        workers: how many processes answer.
        create_indexes: first create the stage's own indexes, as far as the database lacks them.
        http2: serve it with hypercorn instead, which speaks HTTP/2 as well, without TLS (to a client that knows
            beforehand that it does), and answers as many requests at once as Python's thread pool does by default.

    Raises:
        UserError: the shop did not start; the message has the end of its log.
    """
    environment = _environment(stage, **{"DATABASE_URL": database_url, "REDIS_URL": redis_url, **(settings or {})})
    if create_indexes and _has_indexes(stage):
        _create_indexes(stage, environment)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
        tempfile.TemporaryDirectory(prefix="shopfloor-serve-") as notes,
    ):
        port = listener.getsockname()[1]
        ready = Path(notes, "ready")
        ready.touch()
        command = [sys.executable, "-m", *(HYPERCORN if http2 else _gunicorn(ready, threads))]
        command += ["--bind", f"fd://{listener.fileno()}", "--workers", str(workers)]
        command += ["--graceful-timeout", "1", "--log-level", "warning"]

        def is_ready() -> bool:
            return _answers(port) and (http2 or ready.stat().st_size >= workers)  # hypercorn does not tell

        log = stage.path / f"{port}-{os.getpid()}.log"
        with start_child(
            command, log=log, env=environment, cwd=stage.path, pass_fds=[listener.fileno()], grace=3
        ) as child:
            wait_until_ready(child, is_ready, name=f"The {stage.name} shop", timeout=START_TIMEOUT)
            yield Server(f"http://127.0.0.1:{port}", stage, child.pid, log)
    log.unlink()  # kept only where the shop did not start, whose message names it


def _gunicorn(ready: Path, threads: int) -> list[str]:
    """Its arguments, with a configuration by which the file `ready` grows by a byte with each worker."""
    configuration = ready.with_name("gunicorn_configuration.py")
    configuration.write_text(EACH_WORKER_SAYS_SO.format(path=str(ready)))
    command = ["gunicorn", "shop:create_app()", "--config", str(configuration), "--no-control-socket"]
    return [*command, "--worker-class", "gthread", "--threads", str(threads)]


def _unknown(topic: str, solutions: Iterable[str]) -> str:
    near = difflib.get_close_matches(topic, solutions)
    known = (
        f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(sorted(solutions)) or 'none yet'}."
    )
    return f"No topic {topic} has a solution in {material().solutions / 'shop'}. {known}"


def _files(folder: Path) -> dict[str, Path]:
    """The files of a tree by their path in it, without what Python leaves behind."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in sorted(found.items()) if "__pycache__" not in name}


def _materialise(contents: Mapping[str, bytes]) -> Path:
    """The folder with these files under `shop/`; whoever makes the same one meanwhile makes it as well."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    stages = material().state / "stages"
    final = stages / digest.hexdigest()[:16]
    if not final.exists():
        stages.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=stages, prefix="making-", ignore_cleanup_errors=True) as making:
            for name, content in contents.items():
                target = Path(making, "stage", "shop", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            with suppress(OSError):  # another process was faster
                Path(making, "stage").rename(final)
    return final


def _environment(stage: Stage, **settings: str | None) -> dict[str, str]:
    """Nothing of this process's environment reaches the shop but what a process needs to run."""
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    given = {name: value for name, value in settings.items() if value is not None}
    return {**inherited, **given, "PYTHONPATH": str(stage.path), "PYTHONUNBUFFERED": "1"}


def _has_indexes(stage: Stage) -> bool:
    """Whether its file of indexes is another than the naive shop's, which has none; to ask it takes a process."""
    return (stage.path / INDEXES).read_bytes() != (material().labs / INDEXES).read_bytes()


def _create_indexes(stage: Stage, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CREATE_INDEXES],
        env=environment,
        cwd=stage.path,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-5:])
        raise UserError(f"The indexes of the {stage.name} shop could not be created.\n{last}")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
