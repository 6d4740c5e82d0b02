"""How PostgreSQL answers a statement that was read off the wire: it is asked once more, with EXPLAIN before it.

Whatever the program was written in, this is the statement that it sent, with the values and the types that it sent.
"""

import json
from typing import Any

from psycopg import pq
from sqlalchemy import Connection

from shopfloor.checks.wire import Statement
from shopfloor.plans import Plan, plan_of

EXPLAIN = b"EXPLAIN (ANALYZE, BUFFERS, WAL, TIMING OFF, FORMAT JSON) "


def plan_again(database: Connection, statement: Statement) -> Plan | None:
    """Execute a statement again, and return its plan. What it writes is undone.

    Args:
        database: a connection that commits each statement at once, as the fixture `database` does.
        statement: as it went over the wire.

    Returns:
        None if it cannot be explained: it is not one that reads or writes rows, or its parameters are not known.
    """
    if statement.parameters is None:
        return None
    driver: Any = database.connection.driver_connection
    with driver.transaction(force_rollback=True):
        result = driver.pgconn.exec_params(
            EXPLAIN + statement.sql.encode(),
            [parameter.value for parameter in statement.parameters],
            [parameter.type for parameter in statement.parameters],
            [pq.Format.BINARY if parameter.binary else pq.Format.TEXT for parameter in statement.parameters],
        )
        answer = result.get_value(0, 0) if result.status == pq.ExecStatus.TUPLES_OK else None
    return plan_of(json.loads(answer)[0]) if answer else None
