"""What several servers did under the same users: their figures, as a whole, for one request, and around an outage."""

import html
import math
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shopfloor import figures, timeline
from shopfloor.timeline import Second, Span

WIDTH = 80

RECOVERED = 0.8
"""The share of its earlier throughput at which a server is back."""


@dataclass(frozen=True)
class LoadResult:
    """What several servers did under the same users.

    Attributes:
        runs: each server's seconds, by its name, without the one to warm up.
        users: how many users asked at once.
        busy: whether something else kept the machine busy.
        requests: the same for each request by itself: by server, then by method and name, such as "GET /v1/products".
        spans: by server, when each outage was, by its name.
    """

    runs: Mapping[str, Sequence[Second]]
    users: int
    busy: bool
    requests: Mapping[str, Mapping[str, Sequence[Second]]] = field(default_factory=dict)
    spans: Mapping[str, Mapping[str, Span]] = field(default_factory=dict)

    @property
    def throughput(self) -> dict[str, float]:
        """Requests a second that succeeded, by server: the mean of its seconds."""
        return {name: statistics.fmean(_successes(run)) for name, run in self.runs.items()}

    @property
    def failures(self) -> dict[str, int]:
        """Requests that failed, by server."""
        return {name: sum(second.failures for second in run) for name, run in self.runs.items()}

    @property
    def p50(self) -> dict[str, float]:
        """Median latency in milliseconds, by server: that of its middle second; not a number when nothing ended."""
        return {name: _middle(second.p50 for second in run) for name, run in self.runs.items()}

    @property
    def p95(self) -> dict[str, float]:
        """Latency in milliseconds that 95 of 100 requests kept to, by server: that of its middle second."""
        return {name: _middle(second.p95 for second in run) for name, run in self.runs.items()}

    @property
    def p99(self) -> dict[str, float]:
        """Latency in milliseconds that 99 of 100 requests kept to, by server: that of its middle second."""
        return {name: _middle(second.p99 for second in run) for name, run in self.runs.items()}

    def ratio(self, one: str, other: str) -> float:
        """How many times the throughput of server `other` server `one` had.

        Where `other` had no success it counts as one, which is the least that the ratio can be.
        """
        return self.throughput[one] / max(self.throughput[other], 1 / len(self.runs[other]))

    @property
    def named(self) -> dict[str, "LoadResult"]:
        """The result of each request by itself, by method and name, such as "GET /v1/products"."""
        names = dict.fromkeys(name for requests in self.requests.values() for name in requests)
        return {
            name: LoadResult(
                {server: self.requests[server].get(name, _nothing(run)) for server, run in self.runs.items()},
                self.users,
                self.busy,
                spans=self.spans,
            )
            for name in sorted(names)
        }

    def before(self, outage: str) -> "LoadResult":
        """The whole seconds before an outage.

        Raises:
            KeyError: there was no outage of that name.
            ValueError: there is no such second.
        """
        return self._part(f"before {outage!r}", lambda server, _run: self.spans[server][outage].before)

    def during(self, outage: str) -> "LoadResult":
        """The whole seconds within an outage; raises as `before`."""
        return self._part(f"during {outage!r}", lambda server, _run: self.spans[server][outage].seconds)

    def after(self, outage: str) -> "LoadResult":
        """The whole seconds after an outage; raises as `before`."""
        return self._part(f"after {outage!r}", lambda server, run: self.spans[server][outage].after(run[-1].at + 1))

    def recovered_after(self, outage: str) -> dict[str, int | None]:
        """How many seconds after an outage's end each server was back for good, by server; None for not at all.

        Back is at least `RECOVERED` of the median throughput before the outage, and for good is to the end of the run.
        Throughput is smoothed by the median of three seconds, so that a lone bad one of a shared machine is no relapse.

        Raises:
            KeyError: there was no outage of that name.
            ValueError: no second before or after it was measured, or nothing succeeded before it.
        """
        before, after = self.before(outage), self.after(outage)
        found: dict[str, int | None] = {}
        for server in self.runs:
            usual = statistics.median(_successes(before.runs[server]))
            if not usual:
                raise ValueError(f"there is nothing to return to: {server} had no success before {outage!r}")
            back = [count >= RECOVERED * usual for count in _smooth(_successes(after.runs[server]))]
            bad = [position for position, good in enumerate(back) if not good]
            first = bad[-1] + 1 if bad else 0
            found[server] = first if first < len(back) else None
        return found

    def plot(self, caption: str | None = None) -> figures.Figure:
        """Throughput over seconds, and below it latency: a line for the median, a band up to the 95th percentile."""
        return timeline.compared(self.runs, alt=self._summary(), caption=caption)

    def timeline(self, caption: str | None = None) -> figures.Figure:
        """Each server's seconds, one server above the other: answers and failures, latencies, outages shaded."""
        return timeline.stacked(self.runs, self.spans, alt=self._summary(), caption=caption)

    def _part(self, what: str, chosen: Callable[[str, Sequence[Second]], range]) -> "LoadResult":
        """The seconds that `chosen` gives for a server and its run."""
        wanted = {server: chosen(server, run) for server, run in self.runs.items()}

        def keep(server: str, run: Sequence[Second]) -> list[Second]:
            return [second for second in run if second.at in wanted[server]]

        runs = {server: keep(server, run) for server, run in self.runs.items()}
        for server, run in runs.items():
            if not run:
                raise ValueError(f"no whole second of {server} is {what}")
        requests = {
            server: {name: keep(server, run) for name, run in named.items()} for server, named in self.requests.items()
        }
        return LoadResult(runs, self.users, self.busy, requests, self.spans)

    def _summary(self) -> str:
        lines = []
        for name, throughput in self.throughput.items():
            lines.append(
                f"{name}: {_shown(throughput)} requests a second, median {_ms(self.p50[name])}, "
                f"95th percentile {_ms(self.p95[name])}, {self.failures[name]:,} failed"
            )
            lines += [self._told(name, span) for span in self.spans.get(name, {}).values()]
        busy = " The machine was busy with something else." if self.busy else ""
        return f"{self.users} users at once. {'. '.join(lines)}.{busy}"

    def _told(self, server: str, span: Span) -> str:
        """An outage in words, as far as these seconds are about it."""
        run = self.runs[server]
        parts = {
            "before": span.before,
            f"while it lasted, from second {span.start:.0f} to {span.end:.0f},": span.seconds,
            "after": span.after(run[-1].at + 1),
        }
        seconds = {words: [second for second in run if second.at in wanted] for words, wanted in parts.items()}
        told = [f"{words} {_told(part)}" for words, part in seconds.items() if part]
        return f"{span.name}: {', '.join(told)}"

    def __repr__(self) -> str:
        return "\n".join(textwrap.wrap(self._summary(), WIDTH))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column}</th>" for column in ("", "requests/s", "median", "p95", "failed"))
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{_shown(throughput)}</td><td>{_ms(self.p50[name])}</td>"
            f"<td>{_ms(self.p95[name])}</td><td>{self.failures[name]:,}</td></tr>"
            for name, throughput in self.throughput.items()
        )
        caption = f"{self.users} users at once" + ("; the machine was busy with something else" if self.busy else "")
        return (
            f'<table class="sf-table sf-load"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table>"
        )


def _nothing(run: Sequence[Second]) -> list[Second]:
    """The same seconds without any request."""
    return [Second(second.at, 0, 0, None, None, None) for second in run]


def _successes(run: Iterable[Second]) -> list[int]:
    """How many requests of each second did not fail."""
    return [second.successes for second in run]


def _told(run: Sequence[Second]) -> str:
    """Some seconds in words."""
    failed = statistics.fmean(second.failures for second in run)
    median = _middle(second.p50 for second in run)
    latency = "" if math.isnan(median) else f", median {_ms(median)}"
    return f"{_shown(statistics.fmean(_successes(run)))} a second succeeded and {_shown(failed)} failed{latency}"


def _smooth(values: Sequence[int]) -> list[float]:
    """Each value replaced by the median of itself and its neighbours."""
    return [statistics.median(values[max(0, position - 1) : position + 2]) for position in range(len(values))]


def _shown(throughput: float) -> str:
    """A throughput as it is read."""
    return f"{throughput:,.0f}" if throughput >= 10 or throughput == 0 else f"{throughput:.1f}"


def _ms(milliseconds: float) -> str:
    return "unknown" if math.isnan(milliseconds) else f"{milliseconds:,.0f} ms"


def _middle(values: Iterable[float | None]) -> float:
    """The median of the seconds in which any request ended."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else math.nan
