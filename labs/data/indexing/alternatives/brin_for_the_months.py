"""The months from a BRIN index, since orders lie on disk by date; GIN with its default operators.

It costs finance some more blocks than a B-tree, and the writes nearly nothing. The keys end with the date: orders of
the same moment are few, and sorting those is no work.
"""

INDEXES: tuple[str, ...] = (
    "CREATE INDEX orders_customer_idx ON orders (customer_id, placed_at) INCLUDE (status, total_amount)",
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    "CREATE INDEX orders_pending_idx ON orders (placed_at) WHERE status = 'pending'",
    "CREATE INDEX orders_placed_at_idx ON orders USING brin (placed_at)",
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes)",
)
