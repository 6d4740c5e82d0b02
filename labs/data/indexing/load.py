"""Customers who look at what they ordered before: each asks for the history of one customer after the other.

SHOPFLOOR_LOAD_DATA names a JSON file with the list of customers' public ids.

The users form a closed loop: each asks again as soon as it has its answer, and there are always as many requests
under way as there are users. That finds out how much a server can take. It does not find out how long people would
wait at a given rate of arrivals: when the server stalls, these users stop asking, and the requests that would have
come meanwhile are never counted. Gil Tene named that "coordinated omission" (How NOT to Measure Latency, 2013).
Compare latencies here only between servers under the same users.
"""

import itertools
import json
import os
import random
from pathlib import Path

from locust import FastHttpUser, task

CUSTOMERS = json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text())
NUMBERS = itertools.count()


class Customer(FastHttpUser):
    """One of the users; the n-th of every run asks for the same customers in the same order."""

    def on_start(self) -> None:
        """Take a number."""
        self.random = random.Random(next(NUMBERS))  # noqa: S311 - the same on every run, on purpose

    @task
    def history(self) -> None:
        """Ask for a customer's orders."""
        customer = self.random.choice(CUSTOMERS)
        self.client.get(f"/v1/customers/{customer}/orders", name="/v1/customers/<id>/orders")
