"""Where the material (book, labs, solutions) and the working files are.

Everything that looks for the material asks `material`, so that a wheel can carry it one day.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Material:
    """The folders of one working copy.

    Attributes:
        root: the working copy.
        book: the handbook's pages.
        labs: the naive shop (`labs/shop`) and the labs around it.
        solutions: the files that labs change, solved (`solutions/shop`).
        state: hidden folder for what the kit makes and can make again: service data, logs, executed pages.
        build: the built book.
    """

    root: Path

    @property
    def book(self) -> Path:  # noqa: D102 - the class says it
        return self.root / "book"

    @property
    def labs(self) -> Path:  # noqa: D102
        return self.root / "labs"

    @property
    def solutions(self) -> Path:  # noqa: D102
        return self.root / "solutions"

    @property
    def state(self) -> Path:  # noqa: D102
        return self.root / ".shopfloor"

    @property
    def build(self) -> Path:  # noqa: D102
        return self.root / "_build"


@cache
def material() -> Material:
    """Find the working copy that this package was installed from.

    Raises:
        FileNotFoundError: the package lies apart from its material.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "labs" / "shop").is_dir():
        raise FileNotFoundError(
            f"The book and the labs are not beside the package in {root}. "
            "Run Shopfloor from a clone of its repository: make start"
        )
    return Material(root)
