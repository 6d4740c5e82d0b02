"""The index is unique, on columns whose values may repeat.

`UNIQUE` does not make an index faster. It is a rule: no two rows may agree in these columns. An order has several items
and a customer several orders, so PostgreSQL refuses to build such an index, naming the first value that it met twice.

That is the lucky case. On an empty or a small database, on a developer's machine or in tests, the same statement
succeeds. In production the migration then fails and the release stops; or the rule is one that holds today, such as one
order of a customer at one moment, and a year later a good order is refused with "duplicate key value violates unique
constraint", as an error 500, to a customer who wanted to pay.

Say `UNIQUE` where the business says it. To find rows, leave it away. Read "The columns you join by" in the chapter
`data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, and what they have spent.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount, status)""",
    # The items of an order.
    "CREATE UNIQUE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
