"""The index sorts by the right columns, but not in the directions that the query asks for.

An index can be read from either end, so a query that turns *all* directions round is served as well. It cannot be read
in two directions at once. `(placed_at DESC, id)` gives the newest first, and within one moment the oldest number first;
read backwards, it is wrong in both. The query wants `placed_at DESC, id DESC`. `NULLS LAST` counts as well: a plain
`DESC` means `NULLS FIRST`, even where no value can be null.

In production the plan has a sort that the index was meant to spare. At best it is an "Incremental Sort", which puts
each group of equal dates in order by itself: then the `id` was entered in the index for nothing, and the day an import
gives one customer a thousand orders of the same moment, all of these are read for a page of twenty. At worst, with
`NULLS LAST`, every page reads all orders of its customer.

Give the columns the directions that the query has. Read "The columns you sort by" in the chapter `data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, newest first, and what they have spent.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id) INCLUDE (total_amount, status)""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
