"""The indexes of the shop's tables, beyond those that primary keys and unique constraints make.

`shop.database.create_indexes` runs each statement whose index is not there yet. A statement has the form
`CREATE INDEX name ON table ...`. The shop works without any: PostgreSQL then reads the whole table to find a row.
"""

INDEXES: tuple[str, ...] = ()
