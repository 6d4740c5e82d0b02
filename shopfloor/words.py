"""Plain text on a terminal of 80 columns: wrapped, without markup, so that it also reads aloud."""

import os
import textwrap
from pathlib import Path

from shopfloor.console import out

WIDTH = 80


def wrapped(text: str, indent: str = "") -> str:
    """Text broken into lines; a path or an address is never broken, and an indented line stays as it is."""
    lines = []
    for line in text.splitlines():
        if line.startswith(" ") or not line:
            lines.append(indent + line if line else "")
        else:
            lines += textwrap.wrap(
                line,
                WIDTH,
                initial_indent=indent,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def tell(text: str = "", indent: str = "") -> None:
    """Print text, wrapped."""
    out.print(wrapped(text, indent), markup=False)
    out.file.flush()


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else os.fspath(path)


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
