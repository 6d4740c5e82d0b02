"""The book's table of contents."""

from pathlib import Path
from typing import Any

import yaml


def pages(root: Path) -> list[str]:
    """Every page of `_toc.yml` without its ending, in the order in which they are read.

    Args:
        root: the folder that holds it.
    """
    return _entries(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))


def _entries(part: Any) -> list[str]:
    """All `root:` and `file:` names of a part of it."""
    if isinstance(part, list):
        return [name for item in part for name in _entries(item)]
    if not isinstance(part, dict):
        return []
    own = [str(part[key]) for key in ("root", "file") if key in part]
    return own + [name for value in part.values() if isinstance(value, list) for name in _entries(value)]
