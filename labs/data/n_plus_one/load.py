"""Clerks who leaf through the newest orders, 50 on a page.

A closed loop without pauses: see `labs/data/indexing/load.py` for what that measures and what it hides.
"""

import itertools
import random

from locust import FastHttpUser, task

PAGE = 50
PAGES = 20
NUMBERS = itertools.count()


class Clerk(FastHttpUser):
    """One of the users; the n-th of every run asks for the same pages in the same order."""

    def on_start(self) -> None:
        """Take a number."""
        self.random = random.Random(next(NUMBERS))  # noqa: S311 - the same on every run, on purpose

    @task
    def page(self) -> None:
        """Ask for one of the first pages."""
        offset = PAGE * self.random.randrange(PAGES)
        self.client.get(f"/v1/orders?limit={PAGE}&offset={offset}", name="/v1/orders")
