"""The seconds of a run under load, and two drawings of them: servers in one, and one above the other with outages."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from shopfloor import figures

PUNCTUAL = 0.1
"""How many seconds late an event may come and the second still count as wholly within the span."""

HEIGHT = 1.75
"""Of one drawing of several, in inches."""

Runs = Mapping[str, Sequence["Second"]]
Spans = Mapping[str, Mapping[str, "Span"]]


@dataclass(frozen=True)
class Second:
    """What one second of a run brought.

    A request counts in the second in which it ended. The latencies are of all requests that did, failed ones as well:
    what the users waited.

    Attributes:
        at: which one; the first is 0 and goes from 0 s to 1 s of the measured time.
        requests: answers that came, failures among them.
        failures: answers that were errors, and requests that got none.
        p50: milliseconds within which half of its requests ended; None when none did.
        p95: the same for 95 of 100.
        p99: the same for 99 of 100.
    """

    at: int
    requests: int
    failures: int
    p50: float | None
    p95: float | None
    p99: float | None

    @property
    def successes(self) -> int:
        """Requests that did not fail."""
        return self.requests - self.failures


@dataclass(frozen=True)
class Span:
    """When an outage was, in seconds of the measured time and as it happened, to some milliseconds.

    Attributes:
        name: of the outage.
        start: when its `begin` was done.
        end: when its `finish` was called.
    """

    name: str
    start: float
    end: float

    @property
    def seconds(self) -> range:
        """The whole seconds within it."""
        return range(math.ceil(self.start - PUNCTUAL), math.floor(self.end + PUNCTUAL))

    @property
    def before(self) -> range:
        """The whole seconds before it."""
        return range(math.floor(self.start + PUNCTUAL))

    def after(self, seconds: int) -> range:
        """The whole seconds after it, of a run that took as many as given."""
        return range(math.ceil(self.end - PUNCTUAL), seconds)


def compared(runs: Runs, *, alt: str, caption: str | None = None) -> figures.Figure:
    """Draw all servers' throughput, and below it their latency: the median, and a band up to the 95th percentile."""
    with figures.style():
        drawing, (above, below) = plt.subplots(2, sharex=True, figsize=(6.0, 4.6))
        for name, run in runs.items():
            seconds = [second.at + 1 for second in run]
            above.plot(seconds, [second.successes for second in run], label=name)
            p50, p95 = _gaps(second.p50 for second in run), _gaps(second.p95 for second in run)
            (median,) = below.plot(seconds, p50, label=_label(name, p50), marker="o", markersize=3)
            below.fill_between(seconds, p50, p95, color=median.get_color(), alpha=0.2)
        above.set_title("answers a second")
        above.set_ylim(bottom=0)
        below.set_title("milliseconds to an answer, median and 95th percentile")
        below.set_xlabel("seconds")
        below.margins(x=0)
        below.xaxis.get_major_locator().set_params(integer=True)
        _logarithmic(below, runs)
        figures.label_lines(above)
        figures.label_lines(below)
        return figures.figure(drawing, alt=alt, caption=caption)


def stacked(runs: Runs, spans: Spans, *, alt: str, caption: str | None = None) -> figures.Figure:
    """Draw each server by itself, one above the other on common axes: what it answered, what failed, how long it took.

    Args:
        runs: the servers' seconds, by name.
        spans: the outages of each, which are shaded and named.
        alt: what is to be seen, in words.
        caption: a line to stand below.
    """
    with figures.style():
        rows = 2 * len(runs)
        drawing, grid = plt.subplots(rows, sharex=True, squeeze=False, figsize=(6.0, HEIGHT * rows + 0.3))
        above, below = list(grid[::2, 0]), list(grid[1::2, 0])
        for counts, latencies, (name, run) in zip(above, below, runs.items(), strict=True):
            counts.set_title(f"{name}: requests a second")
            latencies.set_title(f"{name}: milliseconds they took")
            _draw_counts(counts, run)
            _draw_latencies(latencies, run)
            for span in spans.get(name, {}).values():
                _shade(counts, span, named=True)
                _shade(latencies, span, named=False)
        most = max(max(second.successes, second.failures, 1) for run in runs.values() for second in run)
        for counts in above:
            counts.set_ylim(0, 1.25 * most)  # the outage's name stands above the lines
        for latencies in below:
            _logarithmic(latencies, runs)
        below[-1].set_xlabel("seconds")
        below[-1].set_xlim(min(run[0].at for run in runs.values()), max(run[-1].at + 1 for run in runs.values()))
        below[-1].xaxis.get_major_locator().set_params(integer=True)
        for axes in (*above, *below):
            figures.label_lines(axes)
        return figures.figure(drawing, alt=alt, caption=caption)


def _draw_counts(axes: Axes, run: Sequence[Second]) -> None:
    """Steps from second to second: answers in a plain line, failures in a dashed one."""
    edges = [*(second.at for second in run), run[-1].at + 1]
    for label, values, line in (
        ("answered", [second.successes for second in run], "-"),
        ("failed", [second.failures for second in run], "--"),
    ):
        axes.plot(edges, [*values, values[-1]], line, drawstyle="steps-post", label=label)


def _draw_latencies(axes: Axes, run: Sequence[Second]) -> None:
    """Lines between the middles of neighbouring seconds in which requests ended; a point where one has no neighbour."""
    ended = [second.requests > 0 for second in run]
    lone = [place for place, some in enumerate(ended) if some and sum(ended[max(0, place - 1) : place + 2]) == 1]
    middles = [second.at + 0.5 for second in run]
    for label, values, line in (
        ("p50", _gaps(second.p50 for second in run), "-"),
        ("p95", _gaps(second.p95 for second in run), "--"),
        ("p99", _gaps(second.p99 for second in run), ":"),
    ):
        (drawn,) = axes.plot(middles, values, line, linewidth=1.4, label=_label(label, values))
        drawn.set(marker="o", markersize=3, markevery=lone)


def _shade(axes: Axes, span: Span, *, named: bool) -> None:
    axes.axvspan(span.start, span.end, color=figures.INK, alpha=0.12)
    for edge in (span.start, span.end):
        axes.axvline(edge, color=figures.INK, linewidth=0.6, linestyle=":")
    if named:
        place = ((span.start + span.end) / 2, 1)
        axes.annotate(span.name, place, (0, -2), ("data", "axes fraction"), "offset points", ha="center", va="top")


def _label(name: str, values: Sequence[float]) -> str:
    """The name of a line; of one without a point, one that is not shown."""
    return "_" if all(map(math.isnan, values)) else name


def _gaps(values: Iterable[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _logarithmic(axes: Axes, runs: Runs) -> None:
    """A logarithmic scale for all latencies of some runs, with ticks that read as numbers, few where it spans much."""
    seconds = [second for run in runs.values() for second in run]
    known = [value for second in seconds for value in (second.p50, second.p95, second.p99) if value is not None]
    low, high = max(min(known, default=1), 0.5) / 1.3, max(max(known, default=10), 1) * 1.3
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,g}")
    axes.yaxis.set_minor_locator(NullLocator())
