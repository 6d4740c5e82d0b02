"""Visitors who look at the bestsellers, and some of them at a product.

SHOPFLOOR_LOAD_DATA names a JSON file with the list of products' public ids.

A closed loop without pauses: see `labs/data/indexing/load.py` for what that measures and what it hides.
"""

import itertools
import json
import os
import random
from pathlib import Path

from locust import FastHttpUser, task

PRODUCTS = json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text())
NUMBERS = itertools.count()


class Visitor(FastHttpUser):
    """One of the users; the n-th of every run asks for the same products in the same order."""

    def on_start(self) -> None:
        """Take a number."""
        self.random = random.Random(next(NUMBERS))  # noqa: S311 - the same on every run, on purpose

    @task(5)
    def front_page(self) -> None:
        """Look at what sells best."""
        self.client.get("/v1/bestsellers", name="/v1/bestsellers")

    @task
    def product(self) -> None:
        """Look at one product."""
        product = self.random.choice(PRODUCTS)
        self.client.get(f"/v1/products/{product}", name="/v1/products/<id>")
