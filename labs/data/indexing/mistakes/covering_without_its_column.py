"""The index covers the query but for one column.

The total reads the amounts of a customer's orders, and the status as well, to leave out those that were cancelled. The
index carries one of the two. One missing column is as bad as all: for it PostgreSQL must visit each row in the table,
and the orders of one customer are scattered over all of it.

In production the total is quick for most customers and slow for the best ones, who are the ones that the service staff
look at. It also happens later, and without a change of any index: someone adds a condition to the query, and an "Index
Only Scan" becomes an "Index Scan" overnight.

Every column that the query names must be in the index: those of `SELECT`, those of `WHERE`, those of `ORDER BY`. Read
"An answer without the table" in the chapter `data/indexing`.
"""

INDEXES: tuple[str, ...] = (
    # A customer's history, newest first, and what they have spent.
    """CREATE INDEX orders_customer_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount)""",
    # The items of an order.
    "CREATE INDEX order_items_order_idx ON order_items (order_id)",
    # The packers' list.
    "CREATE INDEX orders_pending_idx ON orders (placed_at, id) WHERE status = 'pending'",
    # Finance's months.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # Products by what they are like.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
)
