"""A hash index stands where a query asks for a range, or for an order.

A hash index keeps a hash of each value, and hashes of neighbours are not neighbours. It answers `=` and nothing else:
no `<`, no `>=`, no `BETWEEN`, no `ORDER BY`.

In production nothing fails. For a range of dates PostgreSQL does not even consider the index, and reads the whole
table, as if it were not there. For `customer_id = ...` it finds the rows, and then has to sort all of them for the
first page. Nor is it smaller than a B-tree, unless the values are long, as texts are.

Ranges and orders need an index that keeps one: a B-tree, or, for rows that lie on disk by date, BRIN. Read "Other kinds
of index" in the chapter `data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, and what they have spent.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount, status)""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders USING hash (placed_at)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
