"""The index for the packers holds every order, to find the few that are pending.

The plan is good: `(status, placed_at, id)` has the pending orders side by side, the longest waiting first. But nearly
all of its entries are for orders that the packers will never see again, and they stay in it for ever.

In production the page is quick and the writes pay for it. Each order is entered when it comes, and again with each
change of its status, since the status is part of the key. The index grows with all that was ever sold, and takes its
share of the memory. An index of the pending orders alone stays as small as the packers' work.

Give the index a condition of its own. Read "A part of the table" in the chapter `data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, and what they have spent.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount, status)""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_status_idx ON orders (status, placed_at, id)",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
