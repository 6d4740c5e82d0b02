"""The index is on an expression that stands in no query.

An index on `date_trunc('month', placed_at)` knows the months. The query says `placed_at >= ... AND placed_at < ...`,
which is about the column. To you these mean the same; to the planner they have nothing in common, and it does not try
to prove it. The same goes for `lower(email)` when the query says `email`, for `attributes ->> 'colour'` when it says
`attributes @> ...`, for casts, and for the other way round.

In production nothing fails. The index is there, it is even named after the report, and the report reads the whole
table as before. Each new order pays for it.

Either index what the query says, or change the query so that it says what the index has. Read "When the planner is
right to ignore an index" in the chapter `data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, and what they have spent.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount, status)""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Finance asks by the month.
    """CREATE INDEX orders_month_idx
       ON orders (date_trunc('month', placed_at AT TIME ZONE 'UTC'))""",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
