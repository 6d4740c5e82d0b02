"""One caller who asks as fast as it gets answers, and visitors who look at the catalogue now and then.

SHOPFLOOR_LOAD_DATA names a JSON file with the list of products' public ids. The visitors send the key of a known user
each, `visitor-0` to `visitor-9`; the greedy one has none.

A closed loop without pauses: see `labs/data/indexing/load.py` for what that measures and what it hides.
"""

import itertools
import json
import os
import random
from pathlib import Path

from locust import FastHttpUser, constant, task

PRODUCTS = json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text())
NUMBERS = itertools.count()


class Visitor(FastHttpUser):
    """One of the users; the n-th of every run asks for the same products in the same order."""

    weight = 1
    wait_time = constant(0.2)

    def on_start(self) -> None:
        """Take a number."""
        self.number = next(NUMBERS)
        self.random = random.Random(self.number)  # noqa: S311 - the same on every run, on purpose

    @task
    def product(self) -> None:
        """Look at one product."""
        product = self.random.choice(PRODUCTS)
        headers = {"X-API-Key": f"visitor-{self.number % 10}"}
        self.client.get(f"/v1/products/{product}", headers=headers, name="/v1/products/<id>")


class Greedy(FastHttpUser):
    """Reads the dearest list of the shop in a loop, and waits only when it is told for how long."""

    weight = 1
    pause = 0.0

    def wait_time(self) -> float:
        """As long as the last answer said."""
        return self.pause

    @task
    def everything(self) -> None:
        """Ask for the list."""
        response = self.client.get("/v1/bestsellers", name="/v1/bestsellers")
        self.pause = float(response.headers.get("Retry-After", 0) if response.headers else 0)
