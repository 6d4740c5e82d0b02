"""The indexes of the shop's tables, beyond those that primary keys and unique constraints make.

Each serves a query that the shop asks often, and says which. Each also costs every write to its table, and room, so
what no query needs has none:

- `payments.order_id`: it is asked for once in an order's life, when the order is paid, beside a provider that takes far
  longer than to read the table; and no order is deleted. When the table has grown tenfold, look again.
- `order_items.product_id`: the best sellers start from the orders of the last weeks and reach their items by order;
  nothing starts from a product.
- `products` by name or price: the whole table is read and sorted in a few milliseconds, and a cache serves it better.
- `orders.status` by itself: nine in ten orders are delivered, and for those the table is the quicker way. The one
  status that is rare has an index of its own.
"""

INDEXES: tuple[str, ...] = (
    # [start:history]
    # A customer's history, newest first: one range of the index, in the order of the
    # page, so that even the customer with the most orders has a page after reading no
    # more than a page. What a customer has spent is read from the same range without
    # the table (index-only): for that the amount and the status ride along. Nothing is
    # searched by them, so they are not part of the key.
    """CREATE INDEX orders_customer_history_idx
       ON orders (customer_id, placed_at DESC, id DESC) INCLUDE (total_amount, status)""",
    # [end:history]
    # [start:join]
    # The items of an order, and of each order of a page: PostgreSQL makes no index for
    # a foreign key.
    "CREATE INDEX order_items_order_id_idx ON order_items (order_id)",
    # [end:join]
    # [start:pending]
    # The packers' list. One order in a hundred is pending: an index of those alone
    # stays small, and orders that are written in any other status leave it alone.
    """CREATE INDEX orders_pending_idx
       ON orders (placed_at DESC, id DESC) WHERE status = 'pending'""",
    # [end:pending]
    # [start:placed]
    # All orders, newest first, and finance's months. Orders lie on disk by date, so a
    # BRIN index would find a month with a thousandth of the room; but it keeps no
    # order, and the newest fifty would still read the whole table.
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at DESC, id DESC)",
    # [end:placed]
    # [start:attributes]
    # Products by what they are like: attributes @> '{"colour": "green", "tags":
    # ["gift"]}'. jsonb_path_ops indexes whole paths with their values: it answers
    # containment alone, from a smaller index than the default.
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes jsonb_path_ops)",
    # [end:attributes]
)
