"""Locust with a note of every request: the program that `shopfloor.load` runs. Nothing else may import it.

Locust's own CSV history samples running totals and stamps them with whole seconds; a second in which nothing came
repeats the percentiles of an earlier one. A note of each request has neither fault, and costs a microsecond or two.
The clock is the monotonic one, which all processes of a machine share, so that the caller can act at a given moment
of the run. Into the working directory go

    started        when the users started, in seconds of that clock
    requests.json  when Locust ends: [[when it ended, "GET /name", milliseconds, what failed or null], ...]

Source: Locust's documentation, "Event hooks".
"""

import json
import time
from pathlib import Path
from typing import Any

from locust import events
from locust.main import main
from locust.stats import StatsError

STARTED, REQUESTS = "started", "requests.json"


def record(folder: Path) -> None:
    """Note in `folder` what comes of Locust's requests."""
    requests: list[tuple[float, str, float, str | None]] = []

    def start(**_: Any) -> None:
        unfinished = folder / f"{STARTED}.part"  # whoever waits for the file must find it whole
        unfinished.write_text(str(time.monotonic()))
        unfinished.rename(folder / STARTED)

    def note(request_type: str, name: str, response_time: float, exception: Exception | str | None, **_: Any) -> None:
        failure = StatsError.parse_error(exception) if exception else None
        requests.append((time.monotonic(), f"{request_type} {name}", response_time, failure))

    def finish(**_: Any) -> None:
        (folder / REQUESTS).write_text(json.dumps(requests))

    for hook, listener in ((events.test_start, start), (events.request, note), (events.quitting, finish)):
        hook.add_listener(listener)  # type: ignore[no-untyped-call]  # Locust's functions have no types here


if __name__ == "__main__":
    record(Path.cwd())
    main()  # type: ignore[no-untyped-call]  # as above
