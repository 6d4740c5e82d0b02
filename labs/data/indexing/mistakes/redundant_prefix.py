"""One index is the beginning of another.

Whatever `(customer_id)` finds, `(customer_id, placed_at, ...)` finds too, since it is sorted by the customer first. The
shorter index answers no query that the longer one could not.

In production it costs what an index costs: room on disk and in memory, an entry for each new row, log for the replicas.
It usually grows this way: someone adds the index that a framework makes for each foreign key, someone else adds the
one for the page, and nobody dares to drop the first, because `pg_stat_user_indexes` shows it in use. It is: where
either would do, the planner mostly takes the smaller.

Keep the longer one. Read "Several columns, and their order" in the chapter `data/indexing`, and "What every index
costs".
"""

INDEXES: tuple[str, ...] = (
    # The orders of a customer.
    "CREATE INDEX orders_customer_id_idx ON orders (customer_id)",
    # A customer's history, and what they have spent.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount, status)""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
