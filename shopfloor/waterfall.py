"""A trace as a waterfall: a row for each span, its bar where on the common time axis it ran.

Spans alike below one parent, such as the hundred statements of an N+1, share a row. A bar is solid where the span
itself worked and pale where it waited for the rows below it. Text keeps its size and bars take the width there is,
so one drawing reads on a telephone and on a desk; its colours are the page's, in light and dark.

Source: OpenTelemetry semantic conventions for database and HTTP spans, by the old and the stable names of attributes.
"""

import hashlib
import html
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from shopfloor.figures import MAX_BYTES, PALETTE, Figure
from shopfloor.traces import Span, Trace

WIDTH = 80
NAME_WIDTH, TIME_WIDTH = 42, 11
BAR_WIDTH = WIDTH - NAME_WIDTH - TIME_WIDTH - 1
INDENT = "  "

ALIKE_FOLDED = 4
"""From how many spans alike on they share a row."""

ROW_LIMITS = (40, 20, 10)
"""How many rows are drawn; the second and third where the first make a drawing too large for a page."""

LONGEST_TITLE = 160
MOST_NAMED = 6
DEEPEST_INDENT = 8

# Pixels.
LINE, DETAIL, BAR, GAP, STEP = 18, 16, 8, 9, 12
LEGEND = 20
LETTER = 6.6
"""About how wide a letter is; the legend's words stand one behind another by it."""

# Bars are drawn on a scale of 1000 over the whole width.
SCALE = 1000
THINNEST = 3
CLOSEST = 3
MOST_PIECES = 100

TICKS = 5
CACHES = {"redis", "valkey", "memcached"}
COLOURS = {"server": 1, "SQL": 4, "cache": 3, "call": 5, "inside": 6}
"""Sorts of spans, in the order of the legend, with their series' number."""

WARNING = "var(--sf-warning, #b5532a)"


@dataclass(frozen=True, repr=False)
class Waterfall(Figure):
    """A drawn trace: inline SVG, or text in 80 columns where there is only text.

    Attributes:
        text: the drawing for a terminal, where `#` is a span's own time and `-` that of what is below it.
    """

    text: str = ""

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class _Row:
    """A span, or several alike; `parent` is the number of the row above it, -1 for none."""

    spans: tuple[Span, ...]
    depth: int
    parent: int

    @property
    def seconds(self) -> float:
        """For how long any of them ran."""
        return sum(end - start for start, end in _union((span.start, span.end) for span in self.spans)) / 1e9

    @property
    def failed(self) -> bool:
        return self.spans[0].failed

    @property
    def title(self) -> str:
        times = f"{len(self.spans):,} × " if len(self.spans) > 1 else ""
        return times + _title(self.spans[0])

    @property
    def spread(self) -> str:
        """Of several: how long each took, and how many ran at once."""
        if len(self.spans) == 1:
            return ""
        durations = sorted(span.duration for span in self.spans)
        at_once = _most_at_once(self.spans)
        together = "one after another" if at_once == 1 else f"up to {at_once} at once"
        return f"{_ms(durations[0]).removesuffix(' ms')} to {_ms(durations[-1])} each, {together}"

    @property
    def failure(self) -> str:
        """Why it failed, or empty."""
        if not self.failed:
            return ""
        reasons = dict.fromkeys(_printable(reason) for span in self.spans if (reason := _reason(span)))
        return "failed" + (f": {'; '.join(reasons)}" if reasons else "")

    @property
    def details(self) -> list[str]:
        """The lines below its title."""
        failure = [f"✕ {self.failure}"] if self.failed else []
        return [line for line in (self.spread, *failure) if line]


def waterfall(trace: Trace, *, alt: str | None = None, caption: str | None = None) -> Waterfall:
    """Draw a trace.

    Args:
        trace: what `trace_of` made of the spans.
        alt: what it shows, for those who do not see it; None for the figures of its slowest path and its failures.
        caption: a line to stand below it; what is missing from the trace is added.
    """
    rows = _rows(trace)
    alt = alt or _story(trace, rows)
    for limit in ROW_LIMITS:
        shown = _most_telling(rows, limit)
        notes = [*trace.notes, *_left_out(rows, shown)]
        svg = _svg(trace, shown, alt)
        if len(svg.encode()) <= MAX_BYTES:
            break
    return Waterfall(svg, alt, " ".join([*([caption] if caption else []), *notes]) or None, _text(trace, shown, notes))


# ---- what is drawn ----


def _rows(trace: Trace) -> list[_Row]:
    """All rows, parents before children."""
    rows: list[_Row] = []
    waiting = [(group, 0, -1) for group in reversed(_folded(trace.tops))]
    while waiting:
        spans, depth, parent = waiting.pop()
        number = len(rows)
        rows.append(_Row(spans, depth, parent))
        below = [child for span in spans for child in trace.children(span)]
        waiting += [(group, depth + 1, number) for group in reversed(_folded(below))]
    return rows


def _folded(siblings: Sequence[Span]) -> list[tuple[Span, ...]]:
    """Siblings, those alike together where they are many, in the order in which they began."""
    alike: dict[tuple[str, str, bool], list[Span]] = {}
    for span in siblings:
        alike.setdefault((_sort(span), _statement(span) or _title(span), span.failed), []).append(span)
    groups: list[tuple[Span, ...]] = []
    for spans in alike.values():
        groups += [tuple(spans)] if len(spans) >= ALIKE_FOLDED else [(span,) for span in spans]
    return sorted(groups, key=lambda group: min(span.start for span in group))


def _most_telling(rows: Sequence[_Row], limit: int) -> list[_Row]:
    """The failed rows and the longest, with those that they stand below, in their order."""
    if len(rows) <= limit:
        return list(rows)
    chosen: set[int] = set()
    for number in sorted(range(len(rows)), key=lambda number: (not rows[number].failed, -rows[number].seconds)):
        needed = {number} | set(_above(rows, number))
        if len(chosen | needed) <= limit:
            chosen |= needed
    return [rows[number] for number in sorted(chosen)]


def _above(rows: Sequence[_Row], number: int) -> Iterator[int]:
    while (number := rows[number].parent) >= 0:
        yield number


def _left_out(rows: Sequence[_Row], shown: Sequence[_Row]) -> list[str]:
    drawn = {span.span_id for row in shown for span in row.spans}
    others = [span for row in rows for span in row.spans if span.span_id not in drawn]
    if not others:
        return []
    longest = max(span.duration for span in others)
    return [f"{len(others):,} more spans of at most {_ms(longest)} each are not drawn."]


def _sort(span: Span) -> str:
    """Which colour a span has."""
    system = str(span.attributes.get("db.system.name") or span.attributes.get("db.system") or "")
    if system:
        return "cache" if system in CACHES else "SQL"
    return {"server": "server", "consumer": "server", "client": "call", "producer": "call"}.get(span.kind, "inside")


def _statement(span: Span) -> str:
    return str(span.attributes.get("db.query.text") or span.attributes.get("db.statement") or "")


def _title(span: Span) -> str:
    """What a span did, as shortly as it can be told from others."""
    sort = _sort(span)
    title = span.name
    if sort == "SQL" and (statement := _statement(span)):
        title = re.sub(r"%\(\w+\)s(::\w+)?|\$\d+(::\w+)?|%s", "?", " ".join(statement.split()))
        title = re.sub(r"^SELECT\b.*?\bFROM\b", "SELECT … FROM", title)
        table = re.search(r"\bFROM (\w+)", title)
        if table and "JOIN" not in title:
            title = re.sub(rf"\b{table[1]}\.(?=\w)", "", title)
        title = re.sub(r"^(INSERT INTO [\w.\"]+) .*", r"\1 …", title)
    elif sort == "call" and "/" not in title:
        address = span.attributes.get("url.full") or span.attributes.get("http.url") or ""
        title = f"{title} {urlsplit(str(address)).path}".strip()
    return _cut(_printable(title), LONGEST_TITLE)


def _reason(span: Span) -> str:
    """Why a span failed: what it says, else its exception."""
    exceptions = [event.attributes for event in span.events if event.name == "exception"]
    from_exception = [
        f"{of.get('exception.type', '')}: {of.get('exception.message', '')}".strip(": ") for of in exceptions
    ]
    return span.status_message or next(iter(from_exception), "")


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 2
    return f"{milliseconds:,.{digits}f} ms"


def _union(intervals: Iterable[tuple[float, float]], gap: float = 0) -> list[tuple[float, float]]:
    """Intervals without overlaps; those less than `gap` apart become one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, max(start, end)))
    return merged


def _most_at_once(spans: Sequence[Span]) -> int:
    # An end at the same moment as a beginning comes first.
    changes = sorted([(span.start, 1) for span in spans] + [(max(span.end, span.start + 1), -1) for span in spans])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


# ---- in words ----


def _story(trace: Trace, rows: Sequence[_Row]) -> str:
    """The slowest path and the failures."""
    count = "1 span" if len(trace.spans) == 1 else f"{len(trace.spans):,} spans"
    sentences = [f"A trace of {count} over {_ms(trace.duration)}."]
    path = _slowest_path(rows)
    steps = "; in it ".join(_step(row) for row in path)
    sentences.append(f"The slowest path: {steps}." if len(path) > 1 else f"{steps}.")
    own = trace.self_time(trace.root)
    if trace.children(trace.root):
        sentences.append(f"{_ms(own)} are {_title(trace.root)}'s own.")
    repeated = [_step(row) for row in rows if len(row.spans) > 1 and row not in path]
    if repeated:
        sentences.append(f"Repeated, too: {_joined(repeated)}.")
    failures = [f"{row.title} {row.failure}" for row in rows if row.failed]
    if failures:
        sentences.append(f"Errors: {_joined(failures)}.")
    return " ".join([*sentences, *trace.notes])


def _joined(items: Sequence[str]) -> str:
    more = [f"and {len(items) - MOST_NAMED} more"] if len(items) > MOST_NAMED else []
    return "; ".join([*items[:MOST_NAMED], *more])


def _slowest_path(rows: Sequence[_Row]) -> list[_Row]:
    """The root, and of what is below each step the one that took longest."""
    number, path = 0, [rows[0]]
    while below := [place for place, row in enumerate(rows) if row.parent == number]:
        number = max(below, key=lambda place: rows[place].seconds)
        path.append(rows[number])
    return path[:MOST_NAMED]


def _step(row: _Row) -> str:
    return f"{row.title}, {_ms(row.seconds)}" + (f" ({row.spread})" if row.spread else "")


def _text(trace: Trace, rows: Sequence[_Row], notes: Sequence[str]) -> str:
    """The drawing in 80 columns."""
    lines = [f"trace {trace.trace_id}, {_ms(trace.duration)}"]
    for row in rows:
        indent = INDENT * min(row.depth, DEEPEST_INDENT)
        name = _cut(indent + row.title, NAME_WIDTH - 1)
        lines.append(f"{name:<{NAME_WIDTH}}{_ms(row.seconds):>{TIME_WIDTH}} {_typed_bar(trace, row)}".rstrip())
        lines += [_cut(f"{indent}{INDENT * 2}{detail}", WIDTH) for detail in row.details]
    for note in notes:
        lines += textwrap.wrap(note, WIDTH)
    return "\n".join(lines)


def _typed_bar(trace: Trace, row: _Row) -> str:
    ran, worked = _bars(trace, row, BAR_WIDTH)
    letters = []
    for place in range(BAR_WIDTH):
        covered, own = (_overlap(bars, place, place + 1) for bars in (ran, worked))
        letters.append(" " if not covered else "#" if own >= covered / 2 else "-")
    if not any(letter.strip() for letter in letters):  # it ran for no time at all
        letters[min(int(ran[0][0]), BAR_WIDTH - 1)] = "#"
    return "".join(letters)


def _overlap(intervals: Iterable[tuple[float, float]], start: float, end: float) -> float:
    return sum(max(0.0, min(until, end) - max(since, start)) for since, until in _union(intervals))


# ---- as SVG ----


def _bars(trace: Trace, row: _Row, width: float) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Where the row's spans ran, and where they themselves worked, on an axis of that width."""
    per_nanosecond = width / max(1, round(trace.duration * 1e9))

    def placed(times: Iterable[tuple[int, int]]) -> list[tuple[float, float]]:
        return [((start - trace.start) * per_nanosecond, (end - trace.start) * per_nanosecond) for start, end in times]

    ran = placed((span.start, max(span.start, span.end)) for span in row.spans)
    worked = placed(times for span in row.spans for times in trace.own_intervals(span))
    return ran, worked or ([] if any(trace.children(span) for span in row.spans) else ran)


def _svg(trace: Trace, rows: Sequence[_Row], alt: str) -> str:
    sorts = [sort for sort in COLOURS if any(_sort(row.spans[0]) == sort for row in rows)]
    waits = any(row.parent >= 0 for row in rows)
    top = LEGEND * (2 if waits else 1) + LINE
    names, others, bars, height = [], [], [], top + GAP
    for row in rows:
        names.append(_name(row, height + LINE - 5))
        others.append(f'<text x="100%" y="{height + LINE - 5}" text-anchor="end">{_ms(row.seconds)}</text>')
        height += LINE
        for detail in row.details:
            others.append(_detail(row, detail, height + DETAIL - 4))
            height += DETAIL
        bars.append(_bar(trace, row, height))
        height += BAR + GAP
    body = (
        _legend(sorts, waits=waits)
        + _axis(trace, top, height)
        + f'<svg x="0" y="0" width="100%" viewBox="0 0 {SCALE} {height}" preserveAspectRatio="none" '
        f'style="height:{height}px">{"".join(bars)}</svg>'
        f'<g mask="url(#ID)">{"".join(names)}</g>{"".join(others)}'
    )
    # Names fade out before they meet the times: how many letters there is room for is known only to the page.
    fade = (
        '<defs><linearGradient id="IDf"><stop offset=".9" stop-color="#fff"/><stop offset="1" stop-color="#000"/>'
        f'</linearGradient><mask id="ID" maskUnits="userSpaceOnUse" x="0" y="0" width="100%" height="{height}">'
        f'<rect width="80%" height="{height}" fill="url(#IDf)"/></mask></defs>'
    )
    number = hashlib.sha256(body.encode()).hexdigest()[:8]
    drawn = re.sub(r'(id="|url\(#)ID', rf"\g<1>sf{number}", fade + body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(alt)}" fill="currentColor" '
        f'style="width:100%;max-width:38rem;height:{height}px;font-size:13px;font-variant-numeric:tabular-nums">'
        f"{drawn}</svg>"
    )


def _colour(sort: str) -> str:
    number = COLOURS[sort]
    return f"var(--sf-series-{number}, {PALETTE[number - 1]})"


def _legend(sorts: Sequence[str], *, waits: bool) -> str:
    parts, left = [], 0
    for sort in sorts:
        parts.append(f'<rect x="{left}" y="4" width="10" height="10" fill="{_colour(sort)}"/>')
        parts.append(f'<text x="{left + 15}" y="13">{sort}</text>')
        left += round(15 + LETTER * len(sort) + 16)
    if waits:
        line = LEGEND + 13
        parts.append(f'<text y="{line}" opacity=".8">solid: its own time, pale: waiting for rows below</text>')
    return "".join(parts)


def _axis(trace: Trace, top: int, bottom: int) -> str:
    whole = 1000 * trace.duration
    parts = []
    for tick in _ticks(whole):
        place = f"{100 * tick / whole:.2f}%" if whole else "0"
        anchor = "start" if tick == 0 else "end" if tick > 0.93 * whole else "middle"
        label = f"{tick:,g} ms" if tick == 0 else f"{tick:,g}"
        parts.append(
            f'<text x="{place}" y="{top - 5}" text-anchor="{anchor}" font-size="11" opacity=".8">{label}</text>'
        )
        parts.append(f'<line x1="{place}" x2="{place}" y1="{top}" y2="{bottom}" style="stroke:var(--sf-rule, #8885)"/>')
    return "".join(parts)


def _ticks(whole: float) -> list[float]:
    """Round numbers from 0 to `whole`, in milliseconds, about `TICKS` of them."""
    if whole <= 0:
        return [0]
    magnitude = 10.0 ** (len(f"{int(whole)}") - 1)
    while magnitude > whole / TICKS:
        magnitude /= 10
    step = next(size for size in (magnitude * times for times in (1, 2, 5, 10, 20, 50)) if whole / size <= TICKS)
    return [round(step * number, 9) for number in range(int(whole / step) + 1)]


def _indent(row: _Row) -> int:
    return STEP * min(row.depth, DEEPEST_INDENT)


def _name(row: _Row, y: int) -> str:
    weight = ' font-weight="600"' if row.depth == 0 else ""
    title = html.escape(row.title)
    return f'<text x="{_indent(row)}" y="{y}"{weight}>{title}<title>{title}</title></text>'


def _detail(row: _Row, detail: str, y: int) -> str:
    failure = detail.startswith("✕")
    look = f'font-weight="600" style="fill:{WARNING}"' if failure else 'opacity=".8"'
    return f'<text x="{_indent(row)}" y="{y}" font-size="12" {look}>{html.escape(_cut(detail, LONGEST_TITLE))}</text>'


def _bar(trace: Trace, row: _Row, y: int) -> str:
    ran, worked = _bars(trace, row, SCALE)
    fill = f"fill:{_colour(_sort(row.spans[0]))}"
    outline = _rectangles(_seen(ran), y)
    if worked == ran:
        drawn = f'<path d="{outline}" style="{fill}"/>'
    else:
        longest = sorted(worked, key=lambda interval: interval[0] - interval[1])[:MOST_PIECES]
        drawn = f'<path d="{outline}" style="{fill};opacity:.35"/>'
        drawn += f'<path d="{_rectangles(sorted(longest), y)}" style="{fill}"/>'
    if row.failed:
        edge = "fill:none;stroke:currentColor;stroke-width:1.5;vector-effect:non-scaling-stroke"
        drawn += f'<path d="{outline}" style="{edge}"/>'
    return drawn


def _seen(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Intervals each wide enough to be seen, and few enough for a page."""
    wide_enough = ((min(start, SCALE - THINNEST), max(end, start + THINNEST)) for start, end in intervals)
    return _union(wide_enough, gap=CLOSEST)


def _rectangles(intervals: Iterable[tuple[float, float]], y: int) -> str:
    rounded = [(round(start, 1), round(min(end, SCALE), 1)) for start, end in intervals]
    return "".join(f"M{start:g} {y}h{end - start:g}v{BAR}H{start:g}z" for start, end in rounded)
