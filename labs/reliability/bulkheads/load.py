"""Visitors who look at the catalogue as fast as they get it, and customers who pay at a steady rate.

SHOPFLOOR_LOAD_DATA names a JSON file with the list of orders to pay, by their public ids.

The visitors form a closed loop: see `labs/data/indexing/load.py` for what that measures and what it hides. The
customers do not: `RATE` of them come each second, spread evenly, whether or not those before have been answered. Only
when all `CUSTOMERS` wait for an answer does nobody come any more.
"""

import itertools
import json
import os
import random
import time
from pathlib import Path

import gevent
from locust import FastHttpUser, task

ORDERS = itertools.cycle(json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text()))
RATE, CUSTOMERS = 4, 24
VISITORS, NUMBERS = itertools.count(), itertools.count()


class Visitor(FastHttpUser):
    """Someone who looks around; the n-th of every run looks at the same products in the same order."""

    def on_start(self) -> None:
        """Take a number, and look what there is."""
        self.random = random.Random(next(VISITORS))  # noqa: S311 - the same on every run, on purpose
        self.products: list[str] = []

    @task(1)
    def catalogue(self) -> None:
        """Look at a page of products."""
        with self.client.get("/v1/products?limit=20", name="/v1/products") as answer:
            if answer.status_code == 200:
                self.products = [product["id"] for product in answer.json()["data"]]

    @task(3)
    def product(self) -> None:
        """Look at one of them."""
        if self.products:
            self.client.get(f"/v1/products/{self.random.choice(self.products)}", name="/v1/products/<id>")
        else:
            self.catalogue()


class Customer(FastHttpUser):
    """Someone who pays, one order after the other."""

    fixed_count = CUSTOMERS

    def on_start(self) -> None:
        """Come when it is one's turn."""
        self.due = time.monotonic() + next(NUMBERS) / RATE
        gevent.sleep(self.due - time.monotonic())

    def wait_time(self) -> float:
        """Until it is one's turn again; Locust's `constant_pacing` would count the first turn's wait as work."""
        self.due += CUSTOMERS / RATE
        return max(0.0, self.due - time.monotonic())

    @task
    def pay(self) -> None:
        """Pay for the next order."""
        self.client.post(f"/v1/orders/{next(ORDERS)}/payments", name="/v1/orders/<id>/payments")
