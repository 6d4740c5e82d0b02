"""Customers who pay, and a few who only look at the catalogue.

SHOPFLOOR_LOAD_DATA names a JSON file with the list of public ids of orders that are still to be paid. Each customer
pays one order after another, which nobody else pays. One whose payment is pending, or whose payment failed, asks again
for the same order until it is paid, as people do.

The users form a closed loop: see `labs/data/indexing/load.py` for what that measures and what it hides. They pause
between two requests, so that the orders last.
"""

import itertools
import json
import os
from pathlib import Path

from locust import FastHttpUser, constant, task

UNPAID = itertools.cycle(json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text()))
PAUSE = 0.05  # seconds


class Customer(FastHttpUser):
    """One who pays."""

    weight = 4
    wait_time = constant(PAUSE)

    def on_start(self) -> None:
        """Have a first order."""
        self.order = next(UNPAID)

    @task
    def pay(self) -> None:
        """Pay; once it is paid, go on to the next."""
        answer = self.client.post(f"/v1/orders/{self.order}/payments", name="/v1/orders/<id>/payments")
        if answer.status_code == 201:
            self.order = next(UNPAID)


class Visitor(FastHttpUser):
    """One who looks."""

    weight = 1
    wait_time = constant(PAUSE)

    @task
    def look(self) -> None:
        """Look at some products."""
        self.client.get("/v1/products?limit=10", name="/v1/products")
