"""Six indexes for six questions: the history and the total each have their own.

The total's leaves cancelled orders out, so it need not carry the status. The catalogue's leaves out what is withdrawn.
"""

INDEXES: tuple[str, ...] = (
    "CREATE INDEX orders_history_idx ON orders (customer_id, placed_at DESC, id DESC)",
    """CREATE INDEX orders_spent_idx ON orders (customer_id) INCLUDE (total_amount)
       WHERE status <> 'cancelled'""",
    "CREATE INDEX order_items_order_idx ON order_items (order_id, id)",
    """CREATE INDEX orders_open_idx ON orders (status, placed_at, id)
       WHERE status IN ('pending', 'paid')""",
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at, id)",
    """CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)
       WHERE withdrawn_at IS NULL""",
)
