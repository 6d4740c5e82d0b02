"""Metrics: what a service says of itself at `/metrics`, read as Prometheus reads it.

`scrape` takes one reading and `read_page` understands one taken otherwise, `difference` says what happened between two,
`watching` reads again and again, and `plot` draws what it saw.

Sources: Prometheus documentation, "Exposition formats"; "Query functions", `increase` and `histogram_quantile`;
prometheus/promql/quantile.go, `bucketQuantile`.
"""

import difflib
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from shopfloor.errors import UserError

if TYPE_CHECKING:
    from shopfloor.figures import Figure

OPENMETRICS = "application/openmetrics-text"
ACCEPT = f"{OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5"
SCRAPE_SECONDS = 5.0
LARGEST_PAGE = 16 * 2**20
NEAR_ONES = 5

# A proxy that the environment names has no part in what is read from this machine.
_OPENER = build_opener(ProxyHandler({}))

Key = tuple[str, tuple[tuple[str, str], ...]]
"""What tells a series from all others: its name and its labels."""

COUNTED = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
"""The samples of each type of metric that only ever grow."""


class NoSeries(KeyError):  # noqa: N818 - what is not there, as KeyError says
    """There is no such series, which is not the same as one that is 0."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Quantile:
    """What a histogram says of a quantile: no more than in which bucket it is.

    Attributes:
        q: which one, such as 0.95.
        value: PromQL's estimate: as if the observations were spread evenly over the bucket. NaN without observations;
            in the last bucket, which has no end, where that bucket begins.
        lower: where the bucket begins; the true value is above it.
        upper: where it ends; the true value is at most this.
        observations: how many there were in all buckets.
    """

    q: float
    value: float
    lower: float
    upper: float
    observations: float

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        if math.isnan(self.value):
            return f"quantile {self.q:g}: no observations"
        where = f"above {self.lower:g}" if math.isinf(self.upper) else f"between {self.lower:g} and {self.upper:g}"
        return f"quantile {self.q:g}: about {self.value:.3g}; all that is known: {where}"


class Metrics:
    """One reading of all series of a service, or the difference of two.

    Labels that are not given may have any value.

    Attributes:
        families: as prometheus_client's parser gives them.
        at: when it was read, in seconds of `time.monotonic`.
    """

    def __init__(self, families: Sequence[Metric], at: float) -> None:
        self.families = list(families)
        self.at = at
        self._by_name: dict[str, list[Sample]] = {}
        for family in self.families:
            for sample in family.samples:
                self._by_name.setdefault(sample.name, []).append(sample)

    @property
    def names(self) -> list[str]:
        """The names of all series, such as `http_requests_total`."""
        return sorted(self._by_name)

    def samples(self, name: str, /, **labels: str) -> list[Sample]:
        """The series of that name with these labels; none when there is none."""
        return [
            sample
            for sample in self._by_name.get(name, ())
            if all(sample.labels.get(label) == value for label, value in labels.items())
        ]

    def labels(self, name: str, /) -> list[dict[str, str]]:
        """The labels of each series of that name: as many as there are series.

        Raises:
            NoSeries: there is none of that name.
        """
        return [dict(sample.labels) for sample in self._found(name, {})]

    def value(self, name: str, /, **labels: str) -> float:
        """The value of the one series with that name and these labels.

        Raises:
            NoSeries: there is none, which is not the same as 0; the message names those that are near.
            ValueError: there are several; `total` adds them up.
        """
        found = self._found(name, labels)
        if len(found) > 1:
            raise ValueError(
                f"{len(found)} series are {_shown(name, labels)}: {_listed(found)}. Say which, or use total."
            )
        return float(found[0].value)

    def total(self, name: str, /, **labels: str) -> float:
        """The sum of all series with that name and these labels.

        Raises:
            NoSeries: there is none.
        """
        return math.fsum(sample.value for sample in self._found(name, labels))

    def quantile(self, name: str, q: float, /, **labels: str) -> Quantile:
        """Estimate a quantile from a histogram's buckets, as `histogram_quantile(q, sum by (le) (...))` does.

        Args:
            name: of the histogram, without `_bucket`.
            q: from 0 to 1.
            **labels: which series; their buckets are added up.

        Raises:
            NoSeries: there is no such histogram.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"A quantile is from 0 to 1, not {q}.")
        buckets: dict[float, float] = {}
        for sample in self._found(f"{name}_bucket", labels):
            bound = float(sample.labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + sample.value
        return _bucket_quantile(q, sorted(buckets.items()))

    def _found(self, name: str, labels: Mapping[str, str]) -> list[Sample]:
        found = self.samples(name, **labels)
        if found:
            return found
        others = self._by_name.get(name)
        if others:
            raise NoSeries(f"No series is {_shown(name, labels)}; of that name there are {_listed(others)}.")
        near = difflib.get_close_matches(name, self._by_name, n=NEAR_ONES) or self.names[:NEAR_ONES]
        raise NoSeries(f"No series has the name {name}; near it: {', '.join(near) or 'there are none at all'}.")


def scrape(url: str) -> Metrics:
    """Read a service's metrics.

    Args:
        url: of the page, such as `http://127.0.0.1:8000/metrics`.

    Raises:
        UserError: it does not answer, or not with metrics.
    """
    try:
        request = Request(url, headers={"Accept": ACCEPT})  # noqa: S310 - the caller's own address
        with _OPENER.open(request, timeout=SCRAPE_SECONDS) as answer:
            content, kind = answer.read(LARGEST_PAGE + 1), answer.headers.get_content_type()
    except HTTPError as error:
        error.close()
        raise UserError(f"{url} answered {error.code}, not with metrics. Is that where they are?") from None
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"{url} did not answer: {error}. Is the service up, and are its metrics there?") from None
    if len(content) > LARGEST_PAGE:
        raise UserError(f"{url} answered more than {LARGEST_PAGE:,} bytes. Has each request a series of its own?")
    try:
        return read_page(content.decode(), openmetrics=kind == OPENMETRICS)
    except ValueError as error:
        raise UserError(f"What {url} answered is not in Prometheus's format: {error}") from None


def read_page(page: str, *, openmetrics: bool = False) -> Metrics:
    """Read a page of metrics that has just been fetched by other means.

    Args:
        page: its text.
        openmetrics: whether it is in the OpenMetrics format, and not in Prometheus's own.

    Raises:
        ValueError: it is in another format.
    """
    parse = parse_openmetrics if openmetrics else parse_text
    return Metrics(list(parse(page)), at=time.monotonic())


def difference(before: Metrics, after: Metrics) -> Metrics:
    """What happened between two readings: counters and histograms as their growth, all else as it is after.

    A counter that fell was set back to 0 when its process began anew, and grew from there to what it is, as PromQL's
    `increase` has it. Unlike there, a series that was not there before counts from 0, and nothing is extrapolated.
    """
    known = {_key(sample): sample.value for family in before.families for sample in family.samples}
    families = []
    for family in after.families:
        changed = Metric(family.name, family.documentation, family.type, family.unit)
        growing = tuple(family.name + suffix for suffix in COUNTED.get(family.type, ()))
        for sample in family.samples:
            value = _grown(known.get(_key(sample), 0.0), sample.value) if sample.name in growing else sample.value
            changed.samples.append(sample._replace(value=value))
        families.append(changed)
    return Metrics(families, after.at)


def _grown(before: float, after: float) -> float:
    return after if after < before else after - before


def _key(sample: Sample) -> Key:
    return sample.name, tuple(sorted(sample.labels.items()))


def _shown(name: str, labels: Mapping[str, str]) -> str:
    inside = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inside}}}" if inside else name


def _listed(samples: Sequence[Sample]) -> str:
    more = f" and {len(samples) - NEAR_ONES} more" if len(samples) > NEAR_ONES else ""
    return ", ".join(_shown(sample.name, sample.labels) for sample in samples[:NEAR_ONES]) + more


def _bucket_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> Quantile:
    """From cumulative counts by upper bound, in order of the bounds."""
    bounds = [bound for bound, _ in buckets]
    counts = [max(count for _, count in buckets[: place + 1]) for place in range(len(buckets))]  # never falling
    total = counts[-1]
    if len(buckets) < 2 or not math.isinf(bounds[-1]) or total == 0:
        return Quantile(q, math.nan, math.nan, math.nan, total)
    rank = q * total
    place = next(place for place, count in enumerate(counts) if count >= rank)
    upper = bounds[place]
    if place == len(bounds) - 1:
        return Quantile(q, bounds[-2], bounds[-2], upper, total)
    if place == 0 and upper <= 0:
        return Quantile(q, upper, -math.inf, upper, total)
    lower, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    inside = counts[place] - below
    value = lower + (upper - lower) * (rank - below) / inside if inside else math.nan
    return Quantile(q, value, lower, upper, total)


# ---- over time ----


@dataclass(frozen=True)
class Series:
    """One figure over time.

    Attributes:
        seconds: since the watch began.
        values: one for each; NaN where the service did not answer, or had no such series yet.
    """

    seconds: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def known(self) -> list[float]:
        """The values without gaps."""
        return [value for value in self.values if not math.isnan(value)]


class Watch:
    """Readings of a service, taken one after another.

    Attributes:
        url: of its metrics.
        started: when the first was taken, in seconds of `time.monotonic`.
    """

    def __init__(self, url: str, first: Metrics) -> None:
        self.url = url
        self.started = first.at
        self._readings: list[tuple[float, Metrics | None]] = [(first.at, first)]
        self._turn = threading.Lock()

    def read(self) -> None:
        """Take a reading now; that the service does not answer is one, too."""
        try:
            reading = scrape(self.url)
        except UserError:
            reading = None
        with self._turn:
            self._readings.append((reading.at if reading else time.monotonic(), reading))

    @property
    def readings(self) -> list[Metrics]:
        """Those to which the service answered."""
        return [reading for _, reading in self._taken() if reading]

    @property
    def up(self) -> Series:
        """1 where the service answered and 0 where it did not, as Prometheus's own `up`."""
        return self._series([(at, float(reading is not None)) for at, reading in self._taken()])

    def gauge(self, name: str, /, **labels: str) -> Series:
        """The sum of the series with that name and these labels, as each reading has it.

        Raises:
            NoSeries: no reading has one.
        """
        self._need(name, labels)
        points = [(at, _total(reading, name, labels)) for at, reading in self._taken()]
        return self._series(points)

    def rate(self, name: str, /, **labels: str) -> Series:
        """How much a counter grew in each second, between each reading and the one before.

        Raises:
            NoSeries: no reading has such a series.
        """
        self._need(name, labels)
        return self._between(lambda grown, seconds: grown.total(name, **labels) / seconds, name, labels)

    def quantile(self, name: str, q: float, /, **labels: str) -> Series:
        """A quantile of what a histogram took in between each reading and the one before; see `Metrics.quantile`.

        Raises:
            NoSeries: no reading has such a histogram.
        """
        self._need(f"{name}_bucket", labels)
        return self._between(lambda grown, _: grown.quantile(name, q, **labels).value, f"{name}_bucket", labels)

    def _taken(self) -> list[tuple[float, Metrics | None]]:
        with self._turn:
            return list(self._readings)

    def _series(self, points: Sequence[tuple[float, float]]) -> Series:
        return Series(tuple(at - self.started for at, _ in points), tuple(value for _, value in points))

    def _between(self, figure: Callable[[Metrics, float], float], name: str, labels: Mapping[str, str]) -> Series:
        """A figure of each difference to the last reading that there was an answer to."""
        (_, before), *later = self._taken()
        points = []
        for at, reading in later:
            value = math.nan
            if reading and before:
                if _has(reading, name, labels):
                    value = figure(difference(before, reading), reading.at - before.at)
                before = reading
            points.append((at, value))
        return self._series(points)

    def _need(self, name: str, labels: Mapping[str, str]) -> None:
        """Let the last reading say what is near when none has such a series."""
        readings = self.readings
        if not any(_has(reading, name, labels) for reading in readings):
            readings[-1].total(name, **labels)


def _total(reading: Metrics | None, name: str, labels: Mapping[str, str]) -> float:
    return reading.total(name, **labels) if reading and _has(reading, name, labels) else math.nan


def _has(reading: Metrics | None, name: str, labels: Mapping[str, str]) -> bool:
    return reading is not None and bool(reading.samples(name, **labels))


@contextmanager
def watching(url: str, every: float = 1.0) -> Iterator[Watch]:
    """Read a service's metrics again and again while the block runs, and once more at its end.

    Args:
        url: of the page, such as `http://127.0.0.1:8000/metrics`.
        every: seconds from one reading to the next.

    Raises:
        UserError: it does not answer at the beginning, or not with metrics. Later, that is a gap.
    """
    watch = Watch(url, scrape(url))
    ended = threading.Event()

    def read_on() -> None:
        number = 1
        while not ended.wait(max(0.0, watch.started + number * every - time.monotonic())):
            watch.read()
            # A reading that took longer than its turn is not made up for by several at once.
            number = max(number + 1, math.ceil((time.monotonic() - watch.started) / every))

    thread = threading.Thread(target=read_on, name="metrics", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        watch.read()


def plot(panels: Mapping[str, Mapping[str, Series]], *, alt: str | None = None, caption: str | None = None) -> "Figure":
    """Draw series over seconds, each panel below the other.

    Args:
        panels: by the title of each, with its unit, the series by the names that their lines get.
        alt: what it shows, for those who do not see it; None for the median and the range of each series.
        caption: a line to stand below it.
    """
    # Here, because checks read metrics and draw nothing, and matplotlib takes half a second to load.
    from matplotlib import pyplot as plt  # noqa: PLC0415

    from shopfloor import figures  # noqa: PLC0415

    with figures.style():
        drawing, rows = plt.subplots(len(panels), sharex=True, squeeze=False, figsize=(6.0, 1.0 + 1.9 * len(panels)))
        for (axes,), (title, lines) in zip(rows, panels.items(), strict=True):
            for name, series in lines.items():
                label = name if series.known else "_"  # the underscore: matplotlib gives it no name
                axes.plot(series.seconds, series.values, label=label, marker="o", markersize=3)
            axes.set_title(title)
            axes.set_ylim(bottom=0)
        rows[-1][0].set_xlabel("seconds")
        rows[-1][0].xaxis.get_major_locator().set_params(integer=True)
        for (axes,) in rows:
            figures.label_lines(axes)
        return figures.figure(drawing, alt=alt or _summary(panels), caption=caption)


def _summary(panels: Mapping[str, Mapping[str, Series]]) -> str:
    sentences = []
    for title, lines in panels.items():
        told = [f"{name} {_range(series.known)}" for name, series in lines.items()]
        sentences.append(f"{title}: {'; '.join(told)}.")
    return " ".join(sentences)


def _range(values: Sequence[float]) -> str:
    if not values:
        return "without a value"
    return f"median {statistics.median(values):.3g}, from {min(values):.3g} to {max(values):.3g}"
