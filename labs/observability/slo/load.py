"""Customers who look around, and a few who pay.

SHOPFLOOR_LOAD_DATA names a JSON file with the list of public ids of orders that are still to be paid. Whoever pays goes
on to the next order when the payment is made or pending, and tries the same one again when it failed.

The users form a closed loop: see `labs/data/indexing/load.py` for what that measures and what it hides. They pause
between two requests, so that the orders last.
"""

import itertools
import json
import os
from pathlib import Path

from locust import FastHttpUser, constant, task

UNPAID = itertools.cycle(json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text()))
PAUSE = 0.1  # seconds


class Visitor(FastHttpUser):
    """One who looks at products and at an order."""

    weight = 3
    wait_time = constant(PAUSE)

    @task(3)
    def look(self) -> None:
        """Look at some products."""
        self.client.get("/v1/products?limit=10", name="/v1/products")

    @task
    def order(self) -> None:
        """Look at an order."""
        self.client.get(f"/v1/orders/{next(UNPAID)}", name="/v1/orders/<id>")


class Customer(FastHttpUser):
    """One who pays."""

    weight = 1
    wait_time = constant(PAUSE)

    def on_start(self) -> None:
        """Have a first order."""
        self.unpaid = next(UNPAID)

    @task
    def pay(self) -> None:
        """Pay; once that is done, go on to the next."""
        answer = self.client.post(f"/v1/orders/{self.unpaid}/payments", name="/v1/orders/<id>/payments")
        if answer.status_code < 500:
            self.unpaid = next(UNPAID)
