"""Measuring: statements counted, two ways compared, and where it was measured.

Times are only ever compared with times of the same run, taken in turns, so that what disturbs one way
disturbs the other.
"""

import gc
import html
import os
import platform
import re
import statistics
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, event

from shopfloor.paths import material

WIDTH = 80

CAST = r"(?:::(?:TIMESTAMP WITH(?:OUT)? TIME ZONE|DOUBLE PRECISION|\w+)(?:\(\d+\))?(?:\[\])?)?"
"""What SQLAlchemy writes behind a placeholder for psycopg."""

BUSY_SHARE = 0.15
"""The machine is busy when others use more than this share of all its processors."""

BUSY_SAMPLE_SECONDS = 0.2

# --- statements -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """One statement as it was sent.

    Attributes:
        statement: its SQL with placeholders.
        rows: how many rows it fetched; 0 for one that gives none.
    """

    statement: str
    rows: int


@dataclass
class QueryLog:
    """The statements that were sent within `count_queries`.

    Each is a round trip to the database. BEGIN, COMMIT and ROLLBACK are not counted; savepoints are.
    """

    sent: list[Sent] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many statements were sent. One statement sent for many sets of parameters is one."""
        return len(self.sent)

    @property
    def rows(self) -> int:
        """How many rows they fetched, together."""
        return sum(one.rows for one in self.sent)

    @property
    def statements(self) -> list[str]:
        """Their SQL, in the order in which they were sent."""
        return [one.statement for one in self.sent]

    @property
    def shapes(self) -> dict[str, list[Sent]]:
        """The statements that differ in nothing but values, together, in the order of each shape's first."""
        shapes: dict[str, list[Sent]] = {}
        for one in self.sent:
            shapes.setdefault(shape(one.statement), []).append(one)
        return shapes

    def __repr__(self) -> str:
        lines = [f"{self._summary()}:" if self.sent else self._summary()]
        for sql, sent in self.shapes.items():
            start = f"{len(sent):>6,} × "
            lines += textwrap.wrap(
                _without_columns(sql), WIDTH, initial_indent=start, subsequent_indent=" " * len(start)
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        items = "".join(
            f"<details><summary><b>{len(sent):,} ×</b> <code>{html.escape(_without_columns(sql))}</code></summary>"
            f"<pre>{html.escape(sent[0].statement)}</pre></details>"
            for sql, sent in self.shapes.items()
        )
        return f'<div class="sf-queries"><style>{_QUERIES_STYLE}</style><p>{self._summary()}</p>{items}</div>'

    def _summary(self) -> str:
        kinds = f" of {_counted(len(self.shapes), 'kind')}" if self.sent else ""
        return f"{_counted(self.count, 'statement')}{kinds}, {_counted(self.rows, 'row')} fetched"


@contextmanager
def count_queries(engine: Engine | Connection) -> Iterator[QueryLog]:
    """Count the statements that are sent to a database, by any thread, while the block runs.

    Args:
        engine: SQLAlchemy's engine, or one connection of it.
    """
    log = QueryLog()

    def record(
        _connection: Connection, cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool
    ) -> None:
        # psycopg knows how many rows came as soon as the statement is executed.
        rows = max(cursor.rowcount, 0) if cursor.description else 0
        log.sent.append(Sent(statement, rows))

    event.listen(engine, "after_cursor_execute", record)
    try:
        yield log
    finally:
        event.remove(engine, "after_cursor_execute", record)


def shape(statement: str) -> str:
    """A statement's SQL on one line, with a question mark for every value and one for every list of them."""
    sql = " ".join(statement.split())
    sql = re.sub(r"%\(\w+\)s" + CAST, "?", sql)
    sql = re.sub(r"'(?:[^']|'')*'", "?", sql)
    sql = re.sub(r"(?<![\w.$])\d+(?:\.\d+)?\b", "?", sql)
    sql = re.sub(r"\(\?(?:, \?)+\)", "(?, …)", sql)
    return re.sub(r"(\(\?, …\))(?:, \(\?, …\))+", r"\1, …", sql)


def _without_columns(sql: str) -> str:
    """A shape without the columns that its outermost SELECT lists, which are seldom the point."""
    return re.sub(r"^SELECT (?:DISTINCT )?[^()]{30,}? FROM ", "SELECT … FROM ", sql)


_QUERIES_STYLE = (
    ":where(.sf-queries){font-size:.9em;overflow-wrap:anywhere}"
    ":where(.sf-queries p){margin:0 0 .3em;font-weight:600}"
    ":where(.sf-queries summary){cursor:pointer}"
    ":where(.sf-queries pre){white-space:pre-wrap;margin:.3em 0 .6em 1.2em}"
)

# --- two ways compared ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """How long one way took.

    Attributes:
        seconds: each of its runs, in the order in which they were made.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle run, in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which seconds the middle half of the runs lies."""
        return _quartiles(self.seconds)


@dataclass(frozen=True)
class Comparison:
    """Two ways to do the same thing, measured in turns.

    Attributes:
        before: how long the first way took.
        after: how long the second took.
        busy: whether something else kept the machine busy just before or just after.
    """

    before: Timing
    after: Timing
    busy: bool

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of each pair of runs: how many times as long the first way took."""
        return tuple(one / other for one, other in zip(self.before.seconds, self.after.seconds, strict=True))

    @property
    def ratio(self) -> float:
        """How many times as long the first way took: the median of the pairs' ratios."""
        return statistics.median(self.ratios)

    @property
    def ratio_quartiles(self) -> tuple[float, float]:
        """Between which ratios the middle half of the pairs lies."""
        return _quartiles(self.ratios)

    def __repr__(self) -> str:
        return "\n".join(textwrap.wrap(self._sentence(), WIDTH))

    def _repr_html_(self) -> str:
        longest = max(self.before.median, self.after.median)
        bars = "".join(
            f'<div><span>{name}</span><i style="width:{100 * timing.median / longest:.1f}%"></i></div>'
            for name, timing in (("before", self.before), ("after", self.after))
        )
        return (
            f'<div class="sf-comparison"><style>{_COMPARISON_STYLE}</style><p>{self._sentence()}</p>'
            f'<div aria-hidden="true">{bars}</div></div>'
        )

    def _sentence(self) -> str:
        low, high = self.ratio_quartiles
        if self.ratio >= 1:
            finding, low_high = f"{_ratio(self.ratio)} times as fast", f"{_ratio(low)} to {_ratio(high)}"
        else:
            finding = f"{_ratio(1 / self.ratio)} times as slow"
            low_high = f"{_ratio(1 / high)} to {_ratio(1 / low)}"
        busy = " The machine was busy with something else." if self.busy else ""
        return (
            f"{_spread(self.before)} before, {_spread(self.after)} after: {finding} "
            f"({low_high}, the middle half of {len(self.ratios)} pairs).{busy}"
        )


def compare(before: Callable[[], object], after: Callable[[], object], *, rounds: int = 15) -> Comparison:
    """Measure two ways to do the same thing in turns: A B, B A, A B, and so on.

    Each runs once to warm up. The garbage collector runs between the pairs and not within the runs.

    Args:
        before: does it the first way.
        after: does it the second way.
        rounds: how many pairs of runs.

    Raises:
        ValueError: there are fewer than three rounds, which have no spread.
    """
    if rounds < 3:
        raise ValueError(f"rounds={rounds}: a median and a spread need at least 3.")
    busy = machine_is_busy()
    before()
    after()
    pairs = []
    with _collector_off():
        for turn in range(rounds):
            gc.collect()
            if turn % 2 == 0:
                pairs.append((_seconds(before), _seconds(after)))
            else:
                later = _seconds(after)
                pairs.append((_seconds(before), later))
    first, second = zip(*pairs, strict=True)
    return Comparison(Timing(first), Timing(second), busy=machine_is_busy() or busy)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run()
    return max(time.perf_counter_ns() - start, 1) / 1e9


@contextmanager
def _collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _spread(timing: Timing) -> str:
    low, high = timing.quartiles
    scale, unit = next(
        (scale, unit)
        for scale, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs"))
        if timing.median * scale >= 1 or scale > 1e5
    )
    return f"{timing.median * scale:.3g} {unit} ({low * scale:.3g} to {high * scale:.3g})"


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


_COMPARISON_STYLE = (
    ":where(.sf-comparison p){margin:0 0 .3em}"
    ":where(.sf-comparison div div){display:flex;align-items:center;gap:.5em;font-size:.85em}"
    ":where(.sf-comparison span){flex:0 0 3.5em}"
    ":where(.sf-comparison i){height:.6em;min-width:1px;background:var(--sf-series-1,#1f6f8b)}"
    ":where(.sf-comparison div div+div i){background:var(--sf-series-2,#b5532a)}"
)

# --- the machine ------------------------------------------------------------------------------------------------------


def machine_is_busy() -> bool:
    """Whether other processes use more than `BUSY_SHARE` of the processors, in a sample of `BUSY_SAMPLE_SECONDS`.

    Time that a hypervisor gave to other machines counts as theirs; this process's own threads do not. Call it while
    what is measured is idle. The load average is left out on purpose: for minutes it remembers what was measured
    just before.
    """
    own, busy, total = _own_seconds(), *_processor_seconds()
    time.sleep(BUSY_SAMPLE_SECONDS)
    own_later, busy_later, total_later = _own_seconds(), *_processor_seconds()
    others = (busy_later - busy) - (own_later - own)
    return others > BUSY_SHARE * max(total_later - total, BUSY_SAMPLE_SECONDS)


def _processor_seconds() -> tuple[float, float]:
    """Seconds that all processors were busy, and all seconds, since the start of the machine."""
    times = psutil.cpu_times()._asdict()
    # Linux counts guests' time in user's and nice's.
    total = sum(seconds for name, seconds in times.items() if name not in ("guest", "guest_nice"))
    return total - times["idle"] - times.get("iowait", 0.0), total


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


@dataclass(frozen=True)
class Provenance:
    """Where and when something was measured.

    Attributes:
        processor: its model's name.
        cores: processors that the system sees.
        memory_gib: memory, in GiB.
        os: the operating system and its release.
        python: Python's version.
        versions: of the servers, by name.
        commit: of the working copy, with a plus sign when files differ from it; None outside git.
        date: UTC, as ISO 8601 to the second.
        busy: whether something else kept the machine busy.
    """

    processor: str
    cores: int
    memory_gib: float
    os: str
    python: str
    versions: dict[str, str]
    commit: str | None
    date: str
    busy: bool

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        servers = "".join(f", {_SERVERS.get(name, name)} {version}" for name, version in self.versions.items())
        commit = f", commit {self.commit}" if self.commit else ""
        busy = "; the machine was busy with something else" if self.busy else ""
        return (
            f"{self.processor}, {_counted(self.cores, 'core')}, {self.memory_gib:g} GiB; {self.os}; "
            f"Python {self.python}{servers}{commit}; {self.date}{busy}"
        )

    def _repr_html_(self) -> str:
        return f'<p class="sf-provenance">{html.escape(str(self))}</p>'


_SERVERS = {"postgresql": "PostgreSQL", "valkey": "Valkey"}


def provenance(services_versions: Mapping[str, str]) -> Provenance:
    """Say where and when it is measured, for what is measured now.

    Args:
        services_versions: versions of the servers by name, such as `Services.versions`.
    """
    return Provenance(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=dict(services_versions),
        commit=_commit(material().root),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        busy=machine_is_busy(),
    )


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        found = re.search(r"^(?:model name|Model|Hardware)\s*: *(.+)$", described.read_text(), re.MULTILINE)
        name = found[1] if found else ""
    else:
        name = _output("sysctl", "-n", "machdep.cpu.brand_string") or ""
    return " ".join(name.split()) or platform.processor() or platform.machine()


def _commit(root: Path) -> str | None:
    """The working copy's commit; None when `root` is not itself a git working copy, or has none yet."""
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    commit = _output("git", "-C", str(root), "rev-parse", "--short", "HEAD")
    if not top or not commit or Path(top).resolve() != root.resolve():
        return None
    return commit + ("+" if _output("git", "-C", str(root), "status", "--porcelain") else "")


def _output(*command: str) -> str | None:
    """What a command prints; None when there is no such command, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
