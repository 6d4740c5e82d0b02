"""Where a request spends its time: nobody knows yet.

Spans are sent to `otel_exporter_otlp_endpoint` of `shop.settings`, when it is set; the settings that begin with
`trace_` say which, and how many may be kept meanwhile. How many were dropped is told at `/metrics`, by a counter of the
client library's default registry, `trace_spans_dropped_total`.
"""

from flask import Flask


def init_app(app: Flask) -> None:
    """The place to have requests, statements and calls traced."""
