"""A process that has imported everything that checks need, and forks a judge for each request.

Importing SQLAlchemy, Flask and pytest takes most of a second; a fork takes milliseconds. It is run as
`python -m shopfloor.checks.warm DESCRIPTOR`, with one end of a pair of sockets, says that it is ready, and takes one
request at a time: a line of JSON each way. Of the shop it imports the kit's
own files that are lent to the learner's processes, and none of the learner's.
"""

import contextlib
import encodings.idna
import functools
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Imported for those that are forked from here: what they would import themselves.
import defusedxml.ElementTree
import flask
import httpcore2
import httpx2
import msgpack
import opentelemetry.exporter.otlp.proto.http.trace_exporter
import opentelemetry.instrumentation.flask
import opentelemetry.instrumentation.redis
import opentelemetry.instrumentation.sqlalchemy
import opentelemetry.sdk.trace.export
import orjson
import prometheus_client.multiprocess
import psycopg
import pydantic.networks
import pydantic_settings
import redis.utils
import sqlalchemy.dialects.postgresql.psycopg
import structlog
import werkzeug.serving
import yaml

from shopfloor import metrics, traces
from shopfloor.checks.given import given
from shopfloor.checks.judge import Task, judge, warm_up
from shopfloor.services.watchdog import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl, send, sweep

WARMED = (
    *(defusedxml.ElementTree, encodings.idna, flask, httpcore2, httpx2, metrics, msgpack, opentelemetry, orjson),
    *(prometheus_client.multiprocess, psycopg, pydantic.networks, pydantic_settings, redis),
    *(sqlalchemy.dialects.postgresql.psycopg, structlog, traces, werkzeug.serving, yaml),
)
PR_SET_DUMPABLE = 4
END_SECONDS = 1.0
"""How long a judge that has told everything may take to end."""


def serve(engine: socket.socket) -> None:
    """Answer requests until the engine hangs up."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Another process of this user cannot then write into this one's memory or open its pipes. Root can.
    prctl(PR_SET_DUMPABLE, 0)
    warm_up()
    given()
    # Read from a file of metadata for every connection that is made, which takes longer than to connect.
    redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)
    gc.freeze()  # what is here now is never garbage: collecting in a fork would copy all of it
    with engine, engine.makefile("rwb") as stream:
        _say(stream, {"ready": True})
        while line := stream.readline():
            _say(stream, answer(json.loads(line), engine))


def _say(stream: Any, told: Mapping[str, Any]) -> None:
    stream.write((json.dumps(told) + "\n").encode())
    stream.flush()


def answer(request: dict[str, Any], engine: socket.socket) -> dict[str, Any]:
    """Judge in forked processes, one a database, which have `request["seconds"]` for it.

    Then they are killed with all that they started.

    Returns:
        What the judges told, `told`, as far as they came; whether one was `late`; and which `signal` ended one, or 0.
    """
    judges = [_fork_judge(request, part, engine) for part in range(len(request["databases"]))]
    told, late = _read([each.told for each in judges], time.monotonic() + float(request["seconds"]))
    codes = [_end(each.pid, patience=0 if late else END_SECONDS) for each in judges]
    for each in judges:
        os.close(each.told)
        sweep(each.pid)
    records = [record for lines in told for record in _whole(lines)]
    return {"told": records, "late": late, "signal": max(0, *(-code for code in codes))}


@dataclass(frozen=True)
class _Judge:
    """A process that judges, and the end of the pipe where it tells."""

    pid: int
    told: int


def _fork_judge(request: dict[str, Any], part: int, engine: socket.socket) -> _Judge:
    result, told = os.pipe()
    warm = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(result)
        engine.close()
        _judge(request, part, warm, told)
    os.close(told)
    return _Judge(pid, result)


def _end(pid: int, patience: float) -> int:
    """Kill the judge, unless it ends by itself; return its exit code."""
    deadline = time.monotonic() + patience
    while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.001)
    if not ended[0]:
        send(pid, signal.SIGKILL, group=True)
        ended = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(ended[1])


def _judge(request: dict[str, Any], part: int, warm: int, told: int) -> None:
    """In the forked process: judge, tell, end; pytest's own output is nobody's."""
    try:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != warm:
            os._exit(1)  # it died before the line above
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(nowhere, standard)
        os.close(nowhere)
        task = Task(
            tests=Path(request["tests"]),
            stage=Path(request["stage"]),
            database_url=str(request["databases"][part]),
            redis_url=str(request["valkeys"][part]),
            needs=tuple(request["needs"]),
            to_first_failure=bool(request["to_first_failure"]),
            part=part,
        )
        with os.fdopen(told, "wb") as stream:
            judge(task, lambda record: _say(stream, record))
    except BaseException:  # noqa: BLE001 - the log is where a defect of the kit's own is looked for
        traceback.print_exc()
    finally:
        os._exit(0)


def _read(results: Sequence[int], deadline: float) -> tuple[list[bytes], bool]:
    """All that each of them told until the end or the deadline, and whether the deadline came first."""
    texts = dict.fromkeys(results, b"")
    unread = list(results)
    while unread:
        ready, _, _ = select.select(unread, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for result in ready:
            data = os.read(result, 65536)
            texts[result] += data
            if not data:
                unread.remove(result)
    return list(texts.values()), bool(unread)


def _whole(lines: bytes) -> list[Any]:
    """The records; the last one may be cut short when the judge was killed."""
    records: list[Any] = []
    with contextlib.suppress(ValueError):
        records += (json.loads(line) for line in lines.splitlines())
    return records


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
