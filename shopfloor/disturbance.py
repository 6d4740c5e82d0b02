"""Checks run at once, even while a page of the book is measured; so they leave word, and the page says it was busy."""

from pathlib import Path

from shopfloor.paths import material


def _word() -> Path:
    return material().state / "disturbed"


def note() -> None:
    """Leave word that this moment is no good for measuring."""
    material().state.mkdir(exist_ok=True)
    _word().touch()


def disturbed_since(moment: float) -> bool:
    """Whether word was left since a moment, in seconds since 1970."""
    try:
        return _word().stat().st_mtime >= moment
    except FileNotFoundError:
        return False
