"""One index finds a customer's orders, another has the dates, and they are expected to work together.

They cannot. PostgreSQL can find the customer's orders by the one and must then fetch and sort all of them; or it can
walk along the other from the newest order on, and throw away what belongs to others until twenty are found. Two
indexes can be combined to find rows (the plan then says "BitmapAnd"), but what comes out is in no order.

In production the planner picks the lesser evil for each customer, by what it guesses of them. So the page is quick for
most, and for some it reads thousands of orders to show twenty: good customers, and those who have not been back for a
while. It is hard to reproduce, because the plan depends on who asks.

One index with both columns finds and sorts at once. Read "Several columns, and their order" in the chapter
`data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # The orders of a customer, and what they have spent.
    "CREATE INDEX orders_customer_id_idx ON orders (customer_id) INCLUDE (total_amount, status)",
    # Orders by date: a history's, and finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
