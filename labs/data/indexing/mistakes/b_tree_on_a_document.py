"""The index sorts whole JSON documents.

A B-tree on a JSONB column compares each document as one value. It can tell whether two products have exactly the same
attributes, all of them. The catalogue's filter asks something else: which documents *contain* a colour and a material.
For that the B-tree is no help, and neither is a hash index.

In production every visitor who ticks a filter reads all products. And one day saving a product fails: an entry of a
B-tree may take no more than a third of a block, and a document with a long description is larger ("index row size ...
exceeds btree version 4 maximum ...").

For what is *inside* a value there is GIN. Read "Other kinds of index" in the chapter `data/indexing`.
"""

INDEXES: tuple[str, ...] = (
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
    "CREATE INDEX products_attributes_idx ON products (attributes)",
)
