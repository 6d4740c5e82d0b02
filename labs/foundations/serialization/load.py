"""Partners who fetch the newest two hundred orders as JSON.

A closed loop without pauses: see `labs/data/indexing/load.py` for what that measures and what it hides.
"""

from locust import FastHttpUser, task


class Partner(FastHttpUser):
    """One of the users; all ask for the same."""

    @task
    def newest_orders(self) -> None:
        """Fetch them."""
        self.client.get(
            "/v1/exports/orders?limit=200", headers={"Accept": "application/json"}, name="/v1/exports/orders"
        )
