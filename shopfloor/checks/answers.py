"""What a check needs of an answer before it looks at what it says."""

from shopfloor.checks.logged import logged_error
from shopfloor.checks.say import differs
from shopfloor.checks.shop import Answer, Shop


def require_status(shop: Shop, answer: Answer, status: int, *, matters: str) -> Answer:
    """The answer, if it has this status.

    Args:
        shop: who gave it.
        answer: to be looked at.
        status: what it must have.
        matters: what another would do in production.

    Raises:
        NotRight: it has another; tells the error that the shop logged.
    """
    if answer.status != status:
        differs(
            did=answer.did,
            got=f"{answer.status}{logged_error(shop) if answer.status == 500 else ''}",
            expected=status,
            matters=matters,
        )
    return answer
