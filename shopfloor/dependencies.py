"""What a page's outputs depend on besides its own code.

jupyter-cache takes a page's code cells for its key, and so misses the modules that they import and
the files that they have others run. A kernel tells here, after its last cell, which files of the
working copy it used; the executor keeps their digests beside the outputs.
"""

import sys
from pathlib import Path

from shopfloor.paths import material

_noted: set[Path] = set()


def note(*paths: Path) -> None:
    """Say that this process's results depend on `paths`, files that it did not import itself."""
    _noted.update(path.resolve() for path in paths)


def used_files() -> list[str]:
    """The files of the working copy that this process imported or noted, relative to its root, sorted."""
    root = material().root
    origins = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    imported = {Path(origin).resolve() for origin in origins if origin}
    excluded = (root / ".venv", material().state)
    return sorted(
        str(path.relative_to(root))
        for path in imported | _noted
        if path.is_relative_to(root) and not any(path.is_relative_to(folder) for folder in excluded) and path.is_file()
    )
