"""No INCLUDE and no DESC: what rides along is the end of the key, and an index is read from either end.

The items are found by a hash, which is enough to find them.
"""

INDEXES: tuple[str, ...] = (
    "CREATE INDEX orders_customer_idx ON orders (customer_id, placed_at, id, status, total_amount)",
    "CREATE INDEX order_items_order_idx ON order_items USING hash (order_id)",
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at)",
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes)",
)
