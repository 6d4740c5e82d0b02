"""How a call that leaves the shop can fail: given code, no lab changes it."""


class ProviderError(Exception):
    """What was asked for was not done, as far as can be known. The message says why."""


class Refused(ProviderError):  # noqa: N818 - an answer
    """The provider understood and said no (4xx): to ask again the same would bring the same.

    Attributes:
        status: the HTTP status that it answered.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(ProviderError):  # noqa: N818 - a state
    """The provider could not be reached, took too long, or failed. It may have done what it was asked all the same.

    Attributes:
        retry_after: seconds after which it may be worth while to ask again; None if nobody can tell.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotAsked(Unavailable):
    """The shop did not even ask, to spare itself or the provider: nothing was done."""
