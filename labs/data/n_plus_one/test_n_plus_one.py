"""Checks of `data/n_plus_one`."""

from shopfloor.checks.judge import Shop
from shopfloor.checks.say import differs


def test_statements_do_not_grow_with_the_page(shop: Shop) -> None:
    """A page of fifty orders takes no more statements than a page of five."""
    small, large = shop.get("/v1/orders", limit=5), shop.get("/v1/orders", limit=50)
    if len(large.statements) > len(small.statements):
        differs(
            did=large.did,
            got=f"{len(large.statements)} statements, against {len(small.statements)} for 5 orders",
            expected="the same number for both",
            matters="Each statement is a round trip.",
        )
