"""The index has the right columns in the wrong order.

An index is sorted by its first column, and by the second only within that. With the date first, a customer's orders
lie scattered over the whole index, as they do over the table. So PostgreSQL reads one or the other from end to end, or
walks back from the newest order until it has met twenty of this customer's.

In production the page is quick for those who ordered yesterday and slow for those who last came two years ago, and
slower for everyone each month. `EXPLAIN` may even say "Index Scan", and look healthy: it is the blocks that tell.

What a query compares with `=` comes first, then what it sorts by or limits to a range. Read "Several columns, and
their order" in the chapter `data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, newest first, and what they have spent.
    """CREATE INDEX orders_history_idx
       ON orders (placed_at DESC, id DESC, customer_id) INCLUDE (total_amount, status)""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
