"""Where a request spends its time: nobody knows yet.

Spans are sent to `otel_exporter_otlp_endpoint` of `shop.settings`, when it is set.
"""

from flask import Flask


def init_app(app: Flask) -> None:
    """The place to have requests, statements and calls traced."""
