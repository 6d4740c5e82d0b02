"""Rows in COPY's binary format, judged by PostgreSQL."""

import uuid

import numpy as np
from sqlalchemy import Connection, text

from shop import binary_copy as binary


def test_postgresql_reads_what_was_written(connection: Connection) -> None:
    numbers = np.array([-1, 0, 2**40])
    random = np.arange(48, dtype=np.uint8).reshape(3, 16)
    words = ["", "long and short", "één"]
    connection.execute(text("CREATE TABLE t (a bigint, b int, c timestamptz, d uuid, e text, f text, g int)"))
    rows = binary.rows(
        binary.bigints(numbers),
        binary.integers(np.array([-7, 0, 7])),
        binary.timestamps(np.array([0, 946_684_800, 1_793_404_800])),
        binary.uuids(random),
        binary.words(words, np.array([2, 0, 1])),
        binary.hexadecimal("ch_", random[:, :2]),
        binary.nulls(3),
    )
    with connection.connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN (FORMAT binary)") as copy:
        copy.write(binary.HEADER + rows + binary.TRAILER)
    found = connection.execute(text("SELECT a, b, c::date::text AS c, d, e, f, g FROM t")).all()
    assert [row.a for row in found] == numbers.tolist()
    assert [row.b for row in found] == [-7, 0, 7]
    assert [row.c for row in found] == ["1970-01-01", "2000-01-01", "2026-10-31"]
    assert [row.d for row in found] == [uuid.UUID(bytes=row.tobytes(), version=4) for row in random]
    assert [row.e for row in found] == ["één", "", "long and short"]
    assert [row.f for row in found] == ["ch_0001", "ch_1011", "ch_2021"]
    assert [row.g for row in found] == [None, None, None]
