"""Exports that are far down the list of orders, and go on from page to page.

Each begins at an offset, so that nobody has to read two hundred thousand orders first. If the page gives a cursor, it
goes on by that, and by counting if not.

A closed loop without pauses: see `labs/data/indexing/load.py` for what that measures and what it hides.
"""

import itertools

from locust import FastHttpUser, task

PAGE = 10
BEGIN = 170_000
APART = 1_000
NUMBERS = itertools.count()


class Export(FastHttpUser):
    """One of the users; the n-th of every run begins at the same place."""

    def on_start(self) -> None:
        """Take a place."""
        self.offset = BEGIN + APART * next(NUMBERS)
        self.cursor = ""

    @task
    def page(self) -> None:
        """Read the next page."""
        place = f"cursor={self.cursor}" if self.cursor else f"offset={self.offset}"
        answer = self.client.get(f"/v1/orders?limit={PAGE}&{place}", name="/v1/orders")
        self.offset += PAGE
        self.cursor = answer.json()["meta"].get("next") or "" if answer.status_code == 200 else ""
