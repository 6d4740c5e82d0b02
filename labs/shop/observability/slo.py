"""What the shop promises, and whether it keeps it: nothing yet."""

from flask import Flask


def init_app(app: Flask) -> None:
    """The place to say how well the shop keeps its promises."""
