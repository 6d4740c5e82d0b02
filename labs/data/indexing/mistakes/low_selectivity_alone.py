"""The index is on a column that has only a handful of values, and on nothing else.

For the commonest value it is of no use: most orders are delivered, and to read most of a table it is cheaper to read
the table. For the rare value it finds the rows, but in no useful order. So every pending order is fetched, many from a
block of their own, and all are sorted, to show fifty.

In production the packers' page gets slower with the number of pending orders, at its worst after a busy night when it
is needed most. And every change of a status, several in the life of each order, must be written to this index too.

Index the few rows that you look for, and in the order in which you want them. Read "A part of the table" in the chapter
`data/indexing`; "The columns you search by" has what this index is worth.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, and what they have spent.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount, status)""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_status_idx ON orders (status)",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
