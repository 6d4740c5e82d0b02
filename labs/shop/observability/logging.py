"""What the shop writes down about itself: what Flask and Python print by themselves, which are words for a human.

The shop's modules say what happens through `current_app.logger`, with the facts as `extra`. By default the facts, and
whatever is less than a warning, are thrown away.
"""

from flask import Flask


def init_app(app: Flask) -> None:
    """The place to say what is logged, how, and what must never be."""
