"""The shop's users during an incident drill, for Locust: a little of everything, at a pace that leaves room to look."""

import json
import os
import random
from itertools import count
from pathlib import Path
from uuid import uuid4

from locust import FastHttpUser, between, task

DATA = json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text())
NUMBERS = count()


class _Numbered(FastHttpUser):
    """The n-th of every run does the same in the same order."""

    abstract = True

    def on_start(self) -> None:
        """Take a number."""
        self.random = random.Random(next(NUMBERS))  # noqa: S311 - the same on every run, on purpose

    def one_of(self, kind: str) -> str:
        """A public id of `products`, `customers` or `orders`."""
        return str(self.random.choice(DATA[kind]))


class Visitor(_Numbered):
    """Looks around, and now and then buys."""

    weight = 6
    wait_time = between(0.1, 0.4)

    @task(6)
    def product(self) -> None:
        """Look at a product."""
        self.client.get(f"/v1/products/{self.one_of('products')}", name="product")

    @task(4)
    def bestsellers(self) -> None:
        """See what sells."""
        self.client.get("/v1/bestsellers", name="bestsellers")

    @task(3)
    def history(self) -> None:
        """Look up one's own orders."""
        self.client.get(f"/v1/customers/{self.one_of('customers')}/orders", name="history")

    @task(2)
    def quotes(self) -> None:
        """Ask what delivery costs."""
        self.client.get(f"/v1/orders/{self.one_of('orders')}/delivery-quotes", name="quotes")

    @task(2)
    def buy(self) -> None:
        """Place an order and pay it."""
        basket = [{"product_id": self.one_of("products"), "quantity": 1}]
        order = {"customer_id": self.one_of("customers"), "items": basket}
        with self.client.post("/v1/orders", json=order, name="place", catch_response=True) as placed:
            if placed.status_code in {409, 422}:  # sold out, or withdrawn: that is business
                placed.success()
        if placed.status_code == 201:
            headers = {"X-Request-Id": str(uuid4())}
            self.client.post(f"/v1/orders/{placed.json()['id']}/payments", name="pay", headers=headers)


class Clerk(_Numbered):
    """Leafs through the newest orders."""

    weight = 1
    wait_time = between(0.5, 1)

    @task
    def page(self) -> None:
        """See a page of them."""
        self.client.get(f"/v1/orders?limit=20&offset={20 * self.random.randrange(10)}", name="orders")


class Exporter(_Numbered):
    """A customer's own program, which fetches the customer's history over and over; only where the data names one."""

    abstract = DATA["exporters"] == 0
    fixed_count = int(DATA["exporters"])

    @task
    def everything(self) -> None:
        """Fetch a long page of the busiest customer's orders, the oldest first."""
        path = f"/v1/customers/{DATA['busiest']}/orders?limit=100&sort=total_amount"
        self.client.get(path, name="history")
