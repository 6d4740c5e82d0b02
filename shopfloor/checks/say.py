"""What a check says when it is not satisfied: what was done, what came, what was expected, and why it matters."""

from dataclasses import asdict, dataclass
from typing import Any, NoReturn


@dataclass(frozen=True)
class Finding:
    """Why a check failed.

    Attributes:
        did: what the check did, such as `GET /v1/orders?limit=20`.
        got: what came of it.
        expected: what would have been right.
        matters: what it would do in production; empty where a diagnosis says it.
        mistake: the name of the shipped mistake that alone can cause this, or empty.
    """

    did: str
    got: str
    expected: str
    matters: str = ""
    mistake: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the verdict."""
        return asdict(self)


class NotRight(AssertionError):  # noqa: N818 - read in a trace
    """A check is not satisfied."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"did {finding.did}; got {finding.got}; expected {finding.expected}")
        self.finding = finding


def differs(*, did: str, got: object, expected: object, matters: str) -> NoReturn:
    """Fail a check that cannot tell which mistake it sees.

    Raises:
        NotRight: always.
    """
    raise NotRight(Finding(did, str(got), str(expected), matters))


def wrong(mistake: str, *, did: str, got: object, expected: object) -> NoReturn:
    """Fail a check on what only one of the shipped mistakes causes.

    Args:
        mistake: the name of its file in the lab's `mistakes` folder, whose first docstring is the diagnosis.
        did: what the check did.
        got: what came of it.
        expected: what would have been right.

    Raises:
        NotRight: always.
    """
    raise NotRight(Finding(did, str(got), str(expected), mistake=mistake))
