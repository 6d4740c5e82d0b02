"""SQL that a check brings about itself."""

from typing import Any

from sqlalchemy import Connection


def run_all(database: Connection, statements: str) -> None:
    """Run several statements, separated by semicolons."""
    driver: Any = database.connection.driver_connection
    driver.execute(statements)
