"""Traces: a receiver that any OpenTelemetry exporter can send to, and the tree that the spans of a trace make.

The receiver takes what the exporters send by default over HTTP: protobuf, gzipped or not. It runs in threads of the
caller's process and keeps what came in memory.

Source: OpenTelemetry Protocol Specification, "OTLP/HTTP"; opentelemetry-proto, trace.proto.
"""

import socket
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from google.protobuf.json_format import MessageToJson  # type: ignore[import-untyped]  # publishes no types
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # as above
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]  # as above
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as Request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse as Response
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

PATH = "/v1/traces"
PROTOBUF = "application/x-protobuf"
LARGEST_BODY = 20 * 2**20
"""Bytes, before and after decompression: what the specification recommends."""

SPANS_KEPT = 10_000
CONNECTIONS_WAITING = 128
CHUNK = 65536
LAST_WORDS_SECONDS = 5.0
NAMES_SHOWN = 8

Kind = Literal["unspecified", "internal", "server", "client", "producer", "consumer"]
StatusCode = Literal["unset", "ok", "error"]

KINDS: tuple[Kind, ...] = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES: tuple[StatusCode, ...] = ("unset", "ok", "error")


@dataclass(frozen=True)
class Event:
    """Something that happened during a span, such as `exception`.

    Attributes:
        name: what happened.
        time: when, in nanoseconds since 1970.
        attributes: what is known of it.
    """

    name: str
    time: int
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Span:
    """One piece of work, as a service reported it.

    Attributes:
        trace_id: of the request that it belongs to, 32 hexadecimal digits.
        span_id: its own, 16 hexadecimal digits.
        parent_id: the span that it was done for; empty when there is none.
        name: such as `GET /v1/orders/<id>`.
        kind: `server` answers a request, `client` makes one (SQL is one, too), `internal` is neither.
        start: in nanoseconds since 1970, by the clock of the machine that did it.
        end: the same.
        attributes: what it says of itself, by the names of the semantic conventions.
        events: what happened during it.
        status: `unset` unless the program said more.
        status_message: why it failed.
        resource: who reported it: `service.name` and more.
        parent_is_remote: whether its parent is in another process; None when the exporter does not tell.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: Kind
    start: int
    end: int
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    events: tuple[Event, ...] = ()
    status: StatusCode = "unset"
    status_message: str = ""
    resource: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parent_is_remote: bool | None = None

    @property
    def duration(self) -> float:
        """How long it took, in seconds; 0 when the clock was set back during it."""
        return max(0, self.end - self.start) / 1e9

    @property
    def failed(self) -> bool:
        """Whether it is marked as an error."""
        return self.status == "error"


class Trace:
    """The spans of one request, as a tree.

    A span whose parent is not among them stands at the top: the parent is in a service that reports elsewhere, was
    lost, or has not ended yet. `notes` says so.

    Attributes:
        trace_id: what they have in common.
        spans: all of them, the earliest first.
        tops: those that no other span holds; the root is the first.
        notes: what is missing, a sentence each; empty when the tree is whole.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = sorted(spans, key=lambda span: (span.start, -span.end, span.span_id))
        if not self.spans:
            raise ValueError("A trace needs at least one span.")
        self.trace_id = self.spans[0].trace_id
        known = {span.span_id for span in self.spans}
        below: dict[str, list[Span]] = {}
        for span in self.spans:
            below.setdefault(span.parent_id, []).append(span)
        self._children: dict[str, list[Span]] = {}
        without_parent = [span for span in self.spans if not span.parent_id]
        tops = without_parent + [span for span in self.spans if span.parent_id and span.parent_id not in known]
        for top in tops:
            self._adopt(top, below)
        for span in self.spans:
            if span.span_id not in self._children:  # a circle of parents: cut it at its earliest span
                tops.append(span)
                self._adopt(span, below)
        self.tops = tops
        self.notes = [*self._notes(known)]

    def _adopt(self, top: Span, below: Mapping[str, Sequence[Span]]) -> None:
        """Give each span below `top` its children, and none of them twice."""
        self._children[top.span_id] = []
        waiting = [top]
        while waiting:
            span = waiting.pop()
            for child in below.get(span.span_id, ()):
                if child.span_id not in self._children:
                    self._children[child.span_id] = []
                    self._children[span.span_id].append(child)
                    waiting.append(child)

    def _notes(self, known: set[str]) -> Iterator[str]:
        root, *others = self.tops
        if root.parent_id and root.parent_id not in known:
            where = " in another process" if root.parent_is_remote else ""
            yield f"{root.name} has a parent{where}, {root.parent_id}, which is not among these spans."
        lost = [span for span in others if span.parent_id and span.parent_id not in known]
        if lost:
            yield f"The parent of {_listed(lost)} is not among these spans: it was lost, or has not ended yet."
        second = [span for span in others if not span.parent_id]
        if second:
            yield f"There is more than one root: {_listed(second)}, too."
        circle = [span for span in self.tops if span.parent_id in known]
        if circle:
            yield f"{_listed(circle)} is its own ancestor."

    @property
    def root(self) -> Span:
        """Where it began; without a span that has no parent, the earliest whose parent is not here."""
        return self.tops[0]

    @property
    def start(self) -> int:
        """When the first span began, in nanoseconds since 1970."""
        return self.spans[0].start

    @property
    def duration(self) -> float:
        """Seconds from the first beginning to the last end."""
        return max(0, max(span.end for span in self.spans) - self.start) / 1e9

    @property
    def failed(self) -> list[Span]:
        """The spans that are marked as errors."""
        return [span for span in self.spans if span.failed]

    def children(self, span: Span) -> list[Span]:
        """What was done for a span, the earliest first."""
        return list(self._children[span.span_id])

    def walk(self) -> Iterator[tuple[int, Span]]:
        """All spans with how deep each stands, parents before children, as they are shown."""
        waiting = [(0, span) for span in reversed(self.tops)]
        while waiting:
            depth, span = waiting.pop()
            yield depth, span
            waiting += [(depth + 1, child) for child in reversed(self._children[span.span_id])]

    def self_time(self, span: Span) -> float:
        """Seconds of a span in which none of its children ran; children that ran at once count once."""
        return sum(end - start for start, end in self.own_intervals(span)) / 1e9

    def own_intervals(self, span: Span) -> list[tuple[int, int]]:
        """When a span itself worked: begin and end, in nanoseconds since 1970, of what no child covers."""
        own, free_from = [], span.start
        for child in self._children[span.span_id]:
            if child.start > free_from:
                own.append((free_from, min(child.start, span.end)))
            free_from = max(free_from, child.end)
            if free_from >= span.end:
                break
        own.append((free_from, span.end))
        return [(start, end) for start, end in own if end > start]

    def __repr__(self) -> str:
        return f"Trace({self.trace_id}: {self.root.name}, {len(self.spans)} spans, {1000 * self.duration:,.1f} ms)"


def trace_of(spans: Iterable[Span], trace_id: str) -> Trace:
    """The tree of one trace.

    Raises:
        KeyError: none of the spans belongs to it.
    """
    spans = list(spans)
    its = [span for span in spans if span.trace_id == trace_id]
    if not its:
        others = len({span.trace_id for span in spans})
        raise KeyError(f"No span of trace {trace_id} among {len(spans)} spans of {others} traces.")
    return Trace(its)


def traces_of(spans: Iterable[Span]) -> list[Trace]:
    """The trees of all traces, the earliest first."""
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    return sorted((Trace(its) for its in by_trace.values()), key=lambda trace: trace.start)


def _listed(spans: Sequence[Span]) -> str:
    """Names, each once, at most the first few."""
    names = list(dict.fromkeys(span.name for span in spans))
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


class TraceReceiver:
    """Keeps the spans that were sent to it: each once, also when an exporter sends it again.

    Attributes:
        url: what `OTEL_EXPORTER_OTLP_ENDPOINT` must be.
    """

    def __init__(self, url: str, keep: int) -> None:
        self.url = url
        self._keep = keep
        self._spans: OrderedDict[tuple[str, str], Span] = OrderedDict()
        self._forgotten = 0
        self._changed = threading.Condition()

    @property
    def spans(self) -> list[Span]:
        """What came since the last `clear`, in the order in which it came."""
        with self._changed:
            return list(self._spans.values())

    @property
    def forgotten(self) -> int:
        """How many spans were dropped since the last `clear`, because more came than are kept."""
        with self._changed:
            return self._forgotten

    def clear(self) -> None:
        """Forget all spans."""
        with self._changed:
            self._spans.clear()
            self._forgotten = 0

    def add(self, spans: Iterable[Span]) -> None:
        """Keep spans, and drop the oldest when there are too many."""
        with self._changed:
            for span in spans:
                self._spans.setdefault((span.trace_id, span.span_id), span)
            while len(self._spans) > self._keep:
                self._spans.popitem(last=False)
                self._forgotten += 1
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[list[Span]], object], timeout: float = 5.0) -> list[Span]:
        """Wait until what came satisfies `predicate`, and return all of it.

        An exporter sends in batches, by default every five seconds: `OTEL_BSP_SCHEDULE_DELAY`, in milliseconds.

        Args:
            predicate: is asked again whenever spans come.
            timeout: seconds.

        Raises:
            TimeoutError: it was not satisfied in time; the message names the spans that did come.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self.spans), timeout):
                came = f"{len(self._spans)} spans came: {_listed(self.spans)}" if self._spans else "no span came"
                raise TimeoutError(f"The spans waited for did not come within {timeout:g} s; {came}.")
            return self.spans


@contextmanager
def receiving_traces(keep: int = SPANS_KEPT) -> Iterator[TraceReceiver]:
    """Receive traces on a free loopback port while the block runs.

    Args:
        keep: how many spans to keep at most, the latest.

    Yields:
        The receiver; its `url` is what a program must be given as `OTEL_EXPORTER_OTLP_ENDPOINT`.
    """
    with _Server(keep) as server:
        thread = threading.Thread(target=server.serve, name="traces", daemon=True)
        thread.start()
        try:
            yield server.receiver
        finally:
            server.stop()
            thread.join()


class _Server(ThreadingHTTPServer):
    """A thread for each connection; all of them are gone when `stop` returns."""

    request_queue_size = CONNECTIONS_WAITING

    def __init__(self, keep: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.receiver = TraceReceiver(f"http://127.0.0.1:{self.server_port}", keep)
        self._open: set[socket.socket] = set()
        self._closed = threading.Condition()
        self._stopped = False

    def serve(self) -> None:
        """Take connections until `stop`; unlike `serve_forever`, without looking up from time to time."""
        while not self._stopped:
            self.handle_request()

    def stop(self) -> None:
        """Hang up on everyone, for exporters keep their connections open."""
        with self._closed:
            self._stopped = True
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):  # whoever waits for a connection wakes when one comes
            socket.create_connection(("127.0.0.1", self.server_port), timeout=1).close()
        with self._closed:
            self._closed.wait_for(lambda: not self._open, timeout=LAST_WORDS_SECONDS)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._closed:
            self._open.add(connection)
            if self._stopped:
                connection.shutdown(socket.SHUT_RD)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._closed:
            self._open.discard(request)
            self._closed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An exporter that was killed while it sent is no news."""


class _Refused(Exception):  # noqa: N818 - an answer of the protocol, not an error of the program
    """A request that is answered with a Status message."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class _Handler(BaseHTTPRequestHandler):
    """The protocol's one route."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Take spans."""
        try:
            response = self._taken()
        except _Refused as refused:
            self._refuse(refused)
        else:
            self._answer(HTTPStatus.OK, response)

    def do_GET(self) -> None:
        """Refuse: there is nothing to get."""
        self._refuse(_Refused(HTTPStatus.METHOD_NOT_ALLOWED, "Traces are sent with POST.", {"Allow": "POST"}))

    def _taken(self) -> Response:
        body = self._body()
        if self.path != PATH:
            raise _Refused(HTTPStatus.NOT_FOUND, f"Only traces are taken here, at {PATH}, not {self.path}.")
        if self._content_type != PROTOBUF:
            raise _Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"The content must be {PROTOBUF}, not {self._content_type or 'without a type'}: "
                "set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf.",
                {"Accept": PROTOBUF},
            )
        try:
            request = Request.FromString(_unpacked(body, self.headers.get("Content-Encoding", "identity")))
        except DecodeError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"The body is not an ExportTraceServiceRequest: {error}") from None
        spans, rejected = _spans(request)
        self.server.receiver.add(spans)
        response = Response()
        if rejected:
            response.partial_success.rejected_spans = rejected
            response.partial_success.error_message = "A trace id must have 16 bytes and a span id 8, not all of them 0."
        return response

    @property
    def _content_type(self) -> str:
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()

    def _body(self) -> bytes:
        """All of the body: of what is left unread, the client would see a broken connection and not the answer."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "The request must say its Content-Length.")
        left = int(length)
        if left <= LARGEST_BODY:
            return self.rfile.read(left)
        while left and (read := self.rfile.read(min(left, CHUNK))):
            left -= len(read)
        raise _too_large()

    def _refuse(self, refused: _Refused) -> None:
        status = Status(message=refused.message)
        if refused.status == HTTPStatus.BAD_REQUEST:
            violation = BadRequest.FieldViolation(field="body", description=refused.message)
            status.details.add().Pack(BadRequest(field_violations=[violation]))
        self._answer(refused.status, status, refused.headers)

    def _answer(self, status: HTTPStatus, message: Message, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a message, in JSON to whoever speaks JSON."""
        json = self._content_type == "application/json"
        body = MessageToJson(message).encode() if json else message.SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if json else PROTOBUF)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the caller's terminal is not a log."""


def _too_large() -> _Refused:
    return _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The content has more than {LARGEST_BODY:,} bytes.")


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding != "gzip":
        message = f"The content may be gzipped, not {encoding}."
        raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, {"Accept-Encoding": "gzip"})
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = unpacking.decompress(body, LARGEST_BODY)
    except zlib.error as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, f"The body is not gzipped as its header says: {error}") from None
    if unpacking.unconsumed_tail:
        raise _too_large()
    if not unpacking.eof:
        raise _Refused(HTTPStatus.BAD_REQUEST, "The gzipped body ends too early.")
    return content


def _spans(request: Request) -> tuple[list[Span], int]:
    """The spans of a request, and how many others had no valid ids."""
    spans, rejected = [], 0
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for sent in of_scope.spans:
                if len(sent.trace_id) == 16 and len(sent.span_id) == 8 and any(sent.trace_id) and any(sent.span_id):
                    spans.append(_span(sent, resource))
                else:
                    rejected += 1
    return spans, rejected


def _span(sent: trace_pb2.Span, resource: Mapping[str, Any]) -> Span:
    remote = None
    if sent.flags & trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK:
        remote = bool(sent.flags & trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
    return Span(
        trace_id=sent.trace_id.hex(),
        span_id=sent.span_id.hex(),
        parent_id=sent.parent_span_id.hex(),
        name=sent.name,
        kind=KINDS[sent.kind] if sent.kind < len(KINDS) else "unspecified",
        start=sent.start_time_unix_nano,
        end=sent.end_time_unix_nano,
        attributes=_attributes(sent.attributes),
        events=tuple(Event(event.name, event.time_unix_nano, _attributes(event.attributes)) for event in sent.events),
        status=STATUSES[sent.status.code] if sent.status.code < len(STATUSES) else "unset",
        status_message=sent.status.message,
        resource=resource,
        parent_is_remote=remote,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    """A value as Python has it; None when it holds none."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)
