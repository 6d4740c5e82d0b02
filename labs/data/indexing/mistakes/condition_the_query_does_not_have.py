"""The index leaves out rows that the query wants.

A partial index can be used only when the query's own conditions imply the index's. The total leaves out cancelled
orders, so an index `WHERE status <> 'cancelled'` suits it. The history shows cancelled orders too. If PostgreSQL used
the index, they would be missing, so it does not use it.

In production the page reads the whole table, though "there is an index on customer_id" and a quick look at its
definition does not show why. It happens to correct indexes too: a query loses a condition, or a value in it becomes a
parameter that is unknown when a prepared statement is planned, and the plan falls back to the table.

Give an index a condition that each of its queries has. Read "A part of the table" in the chapter `data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, and what they have spent: cancelled orders do not count.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount)
       WHERE status <> 'cancelled'""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
