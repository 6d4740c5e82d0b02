import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from google.protobuf.json_format import Parse
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shopfloor import traces
from shopfloor.traces import Span, Trace, TraceReceiver, receiving_traces, trace_of, traces_of

PROTOBUF = {"Content-Type": "application/x-protobuf"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def receiver() -> Iterator[TraceReceiver]:
    with receiving_traces() as receiver:
        yield receiver


@pytest.fixture
def provider(receiver: TraceReceiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """The real SDK, with the receiver where its environment says."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    yield provider
    provider.shutdown()


def send(
    receiver: TraceReceiver,
    body: bytes,
    headers: dict[str, str] = PROTOBUF,
    path: str = "/v1/traces",
    method: str = "POST",
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(receiver.url).port, timeout=30)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    response.content = response.read()
    connection.close()
    return response


def a_request(*ids: tuple[bytes, bytes]) -> bytes:
    request = ExportTraceServiceRequest()
    for trace_id, span_id in ids:
        span = request.resource_spans.add().scope_spans.add().spans.add()
        span.trace_id, span.span_id, span.name = trace_id, span_id, "work"
    return request.SerializeToString()


def span(name: str, parent: str = "", start: int = 0, end: int = 10, **more) -> Span:
    """A span whose name is its id; times in seconds."""
    return Span(TRACE, name, parent, name, "internal", start * 10**9, end * 10**9, **more)


# ---- the receiver, fed by the real SDK ----


def test_what_the_sdk_sends_arrives_whole(receiver, provider):
    tracer = provider.get_tracer("test")
    with (
        suppress(ZeroDivisionError),
        tracer.start_as_current_span("GET /v1/orders", kind=api.SpanKind.SERVER) as outer,
        tracer.start_as_current_span("SELECT", kind=api.SpanKind.CLIENT) as inner,
    ):
        inner.set_attributes({"text": "a", "yes": True, "count": 3, "ratio": 0.5, "list": ["x", "y"]})
        inner.add_event("looked", {"rows": 2})
        _ = 1 / 0
    assert provider.force_flush()

    sql, server = receiver.wait_for(lambda spans: len(spans) == 2)
    assert (server.name, server.kind, server.parent_id) == ("GET /v1/orders", "server", "")
    assert (sql.name, sql.kind, sql.parent_id) == ("SELECT", "client", server.span_id)
    assert sql.trace_id == server.trace_id == f"{outer.get_span_context().trace_id:032x}"
    assert sql.attributes == {"text": "a", "yes": True, "count": 3, "ratio": 0.5, "list": ["x", "y"]}
    assert sql.resource["service.name"] == "shop"
    assert [event.name for event in sql.events] == ["looked", "exception"]
    assert sql.events[0].attributes == {"rows": 2}
    assert sql.events[1].attributes["exception.type"] == "ZeroDivisionError"
    assert (sql.status, sql.failed) == ("error", True)
    assert sql.status_message == "ZeroDivisionError: division by zero"
    assert sql.start == inner.start_time
    assert sql.end == inner.end_time
    assert sql.duration == pytest.approx((inner.end_time - inner.start_time) / 1e9)
    assert server.start <= sql.start <= sql.end <= server.end


def test_gzipped_spans_are_unpacked(receiver):
    exporter = OTLPSpanExporter(f"{receiver.url}/v1/traces", compression=Compression.Gzip)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    provider.get_tracer("test").start_span("work").end()
    provider.shutdown()
    assert [span.name for span in receiver.spans] == ["work"]


def test_a_parent_in_another_process_is_known_as_such(receiver, provider):
    context = TraceContextTextMapPropagator().extract({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    with provider.get_tracer("test").start_as_current_span("GET /", context=context):
        provider.get_tracer("test").start_span("below").end()
    provider.force_flush()
    trace = trace_of(receiver.spans, TRACE)
    assert trace.root.name == "GET /"
    assert trace.root.parent_id == "00f067aa0ba902b7"
    assert trace.root.parent_is_remote is True
    assert [child.name for child in trace.children(trace.root)] == ["below"]
    assert trace.children(trace.root)[0].parent_is_remote is False
    assert trace.notes == ["GET / has a parent in another process, 00f067aa0ba902b7, which is not among these spans."]


def test_waiting_ends_when_the_spans_come(receiver, provider):
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(receiver.wait_for, lambda spans: [s.name for s in spans] == ["a", "b"], 10)
        provider.get_tracer("test").start_span("a").end()
        provider.force_flush()
        assert not waiting.done()
        provider.get_tracer("test").start_span("b").end()
        provider.force_flush()
        assert [span.name for span in waiting.result(10)] == ["a", "b"]


def test_waiting_in_vain_says_what_did_come(receiver):
    with pytest.raises(TimeoutError, match="did not come within 0.01 s; no span came"):
        receiver.wait_for(len, timeout=0.01)
    receiver.add([span("a"), span("b")])
    with pytest.raises(TimeoutError, match="2 spans came: a, b"):
        receiver.wait_for(lambda spans: len(spans) > 2, timeout=0.01)


def test_only_the_latest_spans_are_kept():
    with receiving_traces(keep=3) as receiver:
        receiver.add(span(name) for name in "abcde")
        assert [span.name for span in receiver.spans] == ["c", "d", "e"]
        assert receiver.forgotten == 2
        receiver.clear()
        assert receiver.spans == []
        assert receiver.forgotten == 0


def test_a_span_that_is_sent_again_counts_once(receiver):
    body = a_request((b"t" * 16, b"s" * 8))
    assert send(receiver, body).status == send(receiver, body).status == 200
    assert len(receiver.spans) == 1


def test_many_senders_at_once_lose_nothing(receiver):
    def export(sender: int) -> None:
        for number in range(20):
            send(receiver, a_request((bytes([sender + 1]) * 16, bytes([number + 1]) * 8)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(export, range(8)))
    assert len(receiver.spans) == 160


def test_nothing_is_left_when_the_block_ends():
    threads = set(threading.enumerate())
    with receiving_traces() as receiver:
        port = urlsplit(receiver.url).port
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        idle.request("POST", "/v1/traces", a_request((b"t" * 16, b"s" * 8)), PROTOBUF)
        idle.getresponse().read()
        halfway = socket.create_connection(("127.0.0.1", port))
        halfway.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    idle.close()
    halfway.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for thread in set(threading.enumerate()) - threads:  # it hung up already; its last line may be to run yet
        thread.join(30)
        assert not thread.is_alive()


# ---- the receiver's answers, as the specification has them ----


def status_of(response: http.client.HTTPResponse) -> Status:
    assert response.headers["Content-Type"] == "application/x-protobuf"
    return Status.FromString(response.content)


def test_success_is_an_empty_response_message(receiver):
    for body in (b"", a_request((b"t" * 16, b"s" * 8))):
        response = send(receiver, body)
        assert (response.status, response.headers["Content-Type"]) == (200, "application/x-protobuf")
        assert not ExportTraceServiceResponse.FromString(response.content).HasField("partial_success")


@pytest.mark.parametrize("ids", [(b"t" * 15, b"s" * 8), (b"t" * 16, b""), (bytes(16), b"s" * 8), (b"t" * 16, bytes(8))])
def test_spans_without_valid_ids_are_rejected_and_the_others_kept(receiver, ids):
    response = send(receiver, a_request(ids, (b"t" * 16, b"s" * 8)))
    partial = ExportTraceServiceResponse.FromString(response.content).partial_success
    assert response.status == 200
    assert partial.rejected_spans == 1
    assert "16 bytes" in partial.error_message
    assert len(receiver.spans) == 1


def test_json_is_refused_in_json(receiver):
    response = send(receiver, b"{}", {"Content-Type": "application/json; charset=utf-8"})
    assert response.status == 415
    assert response.headers["Content-Type"] == "application/json"
    assert "http/protobuf" in Parse(response.content, Status()).message
    assert json.loads(response.content).keys() == {"message"}


def test_other_content_is_refused(receiver):
    for headers in ({"Content-Type": "text/plain"}, {}, {**PROTOBUF, "Content-Encoding": "br"}):
        response = send(receiver, b"x", headers)
        assert response.status == 415
        assert status_of(response).message
    assert response.headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"\xff\xff", "identity"), (b"not gzip", "gzip"), (gzip.compress(b"x" * 1000)[:-9], "gzip")],
    ids=["no message", "not gzip", "cut short"],
)
def test_what_cannot_be_decoded_is_a_bad_request_with_details(receiver, body, encoding):
    response = send(receiver, body, {**PROTOBUF, "Content-Encoding": encoding})
    assert response.status == 400
    status = status_of(response)
    details = BadRequest()
    assert status.details[0].Unpack(details)
    assert details.field_violations[0].description == status.message != ""
    assert receiver.spans == []


def test_what_is_too_large_is_refused_before_and_after_unpacking(receiver, monkeypatch):
    monkeypatch.setattr(traces, "LARGEST_BODY", 10_000)
    for body, encoding in ((bytes(200_000), "identity"), (gzip.compress(bytes(200_000)), "gzip")):
        response = send(receiver, body, {**PROTOBUF, "Content-Encoding": encoding})
        assert response.status == 413
        assert "10,000 bytes" in status_of(response).message


def test_other_paths_and_methods_are_refused(receiver):
    metrics = send(receiver, b"", path="/v1/metrics")
    assert metrics.status == 404
    assert "/v1/metrics" in status_of(metrics).message
    got = send(receiver, b"", method="GET")
    assert (got.status, got.headers["Allow"]) == (405, "POST")


def test_a_body_of_unknown_length_is_refused(receiver):
    head = b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(receiver.url).port), timeout=30) as connection:
        connection.sendall(head + b"0\r\n\r\n")
        assert connection.makefile("rb").readline() == b"HTTP/1.1 411 Length Required\r\n"


def test_a_connection_serves_on_after_a_refusal(receiver):
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(receiver.url).port, timeout=30)
    statuses = []
    for body in (b"\xff\xff", a_request((b"t" * 16, b"s" * 8))):
        connection.request("POST", "/v1/traces", body, PROTOBUF)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    assert statuses == [400, 200]


# ---- the tree ----


def test_a_tree_whatever_the_order_in_which_its_spans_came():
    a, b, c, d = span("a", end=10), span("b", "a", 1, 4), span("c", "b", 2, 3), span("d", "a", 5, 9)
    trace = Trace([c, d, b, a])
    assert trace.root is a
    assert trace.children(a) == [b, d]
    assert [(depth, span.name) for depth, span in trace.walk()] == [(0, "a"), (1, "b"), (2, "c"), (1, "d")]
    assert trace.duration == 10
    assert trace.notes == []


def test_own_time_is_what_no_child_covers():
    root = span("root", end=100)
    below = [
        span("a", "root", 10, 30),
        span("b", "root", 20, 40),
        span("c", "root", 35, 38),
        span("d", "root", 90, 120),
    ]
    trace = Trace([root, *below])
    assert trace.self_time(root) == 10 + 50
    assert trace.own_intervals(root) == [(0, 10 * 10**9), (40 * 10**9, 90 * 10**9)]
    assert trace.self_time(below[0]) == 20
    assert trace.duration == 120


def test_children_outside_their_parent_take_nothing_from_it():
    root = span("root", start=10, end=20)
    trace = Trace([root, span("before", "root", 0, 5), span("after", "root", 30, 40)])
    assert trace.self_time(root) == 10


def test_a_span_whose_clock_was_set_back_took_no_time():
    root = span("root", start=10, end=5)
    assert root.duration == 0
    assert Trace([root]).self_time(root) == 0


def test_a_lost_parent_is_said_and_its_children_stand_at_the_top():
    trace = Trace([span("orphan", "lost", 2, 3), span("root", "", 1, 9), span("child", "root", 4, 5)])
    assert trace.root.name == "root"
    assert [top.name for top in trace.tops] == ["root", "orphan"]
    assert trace.notes == ["The parent of orphan is not among these spans: it was lost, or has not ended yet."]


def test_two_roots_and_a_circle_are_said():
    spans = [span("one"), span("two"), span("x", "y"), span("y", "x"), span("self", "self")]
    trace = Trace(spans)
    assert sorted(span.name for _, span in trace.walk()) == ["one", "self", "two", "x", "y"]
    assert trace.notes == ["There is more than one root: two, too.", "self, x is its own ancestor."]


def test_traces_are_told_apart():
    other = Span("0" * 31 + "1", "s", "", "other", "server", 0, 1)
    spans = [span("late", start=5), other]
    assert [trace.root.name for trace in traces_of(spans)] == ["other", "late"]
    assert trace_of(spans, TRACE).root.name == "late"
    with pytest.raises(KeyError, match="No span of trace feed among 2 spans of 2 traces"):
        trace_of(spans, "feed")


def test_spans_can_be_keys():
    assert len({span("a", attributes={"x": [1]}), span("a", attributes={"x": [1]})}) == 1
