"""Each column has an index of its own, so that every query finds one.

But a query seldom needs one column. A customer's history wants the customer *and* the order of the dates, and two
indexes do not add up to that: PostgreSQL finds the rows by the one and sorts them, or walks along the other and throws
most of them away. Meanwhile every new order is entered in all of them, and an order whose status changes gets new
entries in each, also in those that have nothing to do with the status.

In production this shows as slow writes and much of them: more log on the disk, replicas that lag behind, a buffer
cache full of indexes that no query uses. `pg_stat_user_indexes` lists those, with an `idx_scan` of zero.

Start from the queries: for each, one index with the columns that it has. Read "What every index costs" in the chapter
`data/indexing`, and "Several columns, and their order" for what to make instead.
"""

INDEXES: tuple[str, ...] = (
    # Orders, by whatever anyone may ask for.
    "CREATE INDEX orders_customer_id_idx ON orders (customer_id)",
    "CREATE INDEX orders_status_idx ON orders (status)",
    "CREATE INDEX orders_placed_at_idx ON orders (placed_at)",
    "CREATE INDEX orders_total_amount_idx ON orders (total_amount)",
    "CREATE INDEX orders_currency_idx ON orders (currency)",
    # Items.
    "CREATE INDEX order_items_order_id_idx ON order_items (order_id)",
    "CREATE INDEX order_items_product_id_idx ON order_items (product_id)",
    "CREATE INDEX order_items_quantity_idx ON order_items (quantity)",
    "CREATE INDEX order_items_unit_price_idx ON order_items (unit_price)",
    # Products.
    "CREATE INDEX products_category_id_idx ON products (category_id)",
    "CREATE INDEX products_price_amount_idx ON products (price_amount)",
    "CREATE INDEX products_attributes_idx ON products USING gin (attributes)",
)
