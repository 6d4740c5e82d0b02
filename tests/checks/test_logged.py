"""What of the learner's log stands at the end of a sentence."""

import pytest

from shopfloor.checks.logged import last_error

TRACEBACK = """Traceback (most recent call last):
  File "/tmp/stages/0a1b/shop/api/resources.py", line 12, in order
    return order_json(order)
  File "/site-packages/flask/app.py", line 880, in full_dispatch_request
    rv = self.dispatch_request()
"""


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("", ""),
        ("a line of the log\n", ""),
        (TRACEBACK, ""),
        (TRACEBACK + "KeyError: 'total'", ""),
        (TRACEBACK + "KeyError: 'total'\n", "KeyError: 'total' (shop/api/resources.py, line 12)"),
        ("Traceback (most recent call last):\nKeyError\n", "KeyError"),
        (TRACEBACK + "ValueError: first\nmore\n" + TRACEBACK + "TypeError: second\n", "TypeError: second (shop/api"),
        (
            TRACEBACK + "sqlalchemy.exc.DetachedInstanceError: <Order at 0x7f12ab> (Background on this error at: x)\n",
            "DetachedInstanceError: <Order> (shop/",
        ),
        (
            TRACEBACK + "sqlalchemy.exc.DBAPIError: (psycopg.errors.A) b\n[SQL: SELECT 1]\n",
            "DBAPIError: (psycopg.errors.A) b",
        ),
    ],
    ids=[
        "nothing",
        "none",
        "not all of it",
        "half a line",
        "with its place",
        "bare",
        "the last",
        "noise",
        "many lines",
    ],
)
def test_the_last_error(printed: str, said: str) -> None:
    assert last_error(printed).startswith(said)
    assert bool(last_error(printed)) == bool(said)
