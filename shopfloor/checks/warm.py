"""A process that has imported everything that checks need, and forks a judge for each request.

Importing SQLAlchemy, Flask and pytest takes most of a second; a fork takes milliseconds. It is run as
`python -m shopfloor.checks.warm DESCRIPTOR`, with a listening socket, and takes one request at a time:
a line of JSON each way. It never imports the shop: that is the learner's.
"""

import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# Imported for those that are forked from here.
import flask
import httpx2
import psycopg
import pydantic_settings
import redis
import sqlalchemy.dialects.postgresql.psycopg
import werkzeug.serving

from shopfloor.checks.judge import Task, judge
from shopfloor.services.watchdog import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl, send, sweep

WARMED = (flask, httpx2, psycopg, pydantic_settings, redis, sqlalchemy.dialects.postgresql.psycopg, werkzeug.serving)


def serve(listener: socket.socket) -> None:
    """Answer requests until killed."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            request = json.loads(stream.readline())
            stream.write((json.dumps(answer(request)) + "\n").encode())


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Judge in a forked process, which has `request["seconds"]` for it and is then killed with all that it started."""
    result, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(result)
        _judge(request, told)
    os.close(told)
    told_text = _read(result, time.monotonic() + float(request["seconds"]))
    os.close(result)
    send(pid, signal.SIGKILL, group=True)
    sweep(pid)
    if told_text is None:
        return {"results": [], "complete": False, "late": True}
    return dict(json.loads(told_text)) if told_text else {"results": [], "complete": False}


def _judge(request: dict[str, Any], told: int) -> None:
    """In the forked process: judge, tell, end; pytest's own output is nobody's."""
    try:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(nowhere, standard)
        task = Task(
            Path(request["tests"]), Path(request["stage"]), str(request["database_url"]), str(request["redis_url"])
        )
        with os.fdopen(told, "wb") as stream:
            stream.write(json.dumps(judge(task)).encode())
    except BaseException:  # noqa: BLE001 - the log is where a defect of the kit's own is looked for
        traceback.print_exc()
    finally:
        os._exit(0)


def _read(result: int, deadline: float) -> bytes | None:
    """All that was told, or None when the deadline came first."""
    text = b""
    while True:
        ready, _, _ = select.select([result], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        data = os.read(result, 65536)
        if not data:
            return text
        text += data


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
