"""Checks of `data/indexing`: what the tickets' queries read with the declared indexes, and what these cost.

The queries are those that the shop sends. Rows and blocks are the same on every machine. What a known mistake alone
can cause is looked for first, so that half an answer hears of its mistake before it hears of what is still missing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from shopfloor.checks.judge import Index, Tables
from shopfloor.checks.say import differs, wrong
from shopfloor.plans import Plan

ORDERS = """
    SELECT orders.id, orders.public_id, orders.customer_id, orders.status, orders.placed_at, orders.total_amount,
           orders.currency
    FROM orders
    WHERE {where}
    ORDER BY {order}
    LIMIT :limit OFFSET 0"""
HISTORY = ORDERS.format(where="orders.customer_id = :customer", order="orders.placed_at DESC, orders.id DESC")
PENDING = ORDERS.format(where="orders.status = CAST(:status AS varchar)", order="orders.placed_at ASC, orders.id ASC")
MONTH = ORDERS.format(
    where="orders.placed_at >= :start AND orders.placed_at < :end", order="orders.placed_at ASC, orders.id ASC"
)
ITEMS = """
    SELECT order_items.id, order_items.order_id, order_items.product_id, order_items.quantity, order_items.unit_price
    FROM order_items WHERE :order = order_items.order_id ORDER BY order_items.id"""
PRODUCTS = """
    SELECT products.id, products.public_id, products.sku, products.name, products.category_id, products.price_amount,
           products.currency, products.attributes, products.withdrawn_at, products.version
    FROM products
    WHERE products.withdrawn_at IS NULL AND products.attributes @> CAST(:attributes AS jsonb)
    ORDER BY products.name ASC, products.id ASC
    LIMIT 20 OFFSET 0"""
TOTAL = "SELECT sum(total_amount) FROM orders WHERE customer_id = :customer AND status <> 'cancelled'"

BUYERS = "SELECT customer_id, count(*) AS orders FROM orders GROUP BY customer_id ORDER BY orders DESC, customer_id"
BLOCKS = "SELECT pg_relation_size(CAST(:name AS regclass)) / 8192"
ROWS = "SELECT max(reltuples) FROM pg_class WHERE relname = ANY(:names) AND relnamespace = 'public'::regnamespace"
FEW_VALUES = """
    SELECT tablename, attname, n_distinct FROM pg_stats
    WHERE schemaname = 'public' AND n_distinct BETWEEN 1 AND 5"""
OWN_KEYS = """
    SELECT conrelid::regclass::text, ARRAY(SELECT attname::text FROM pg_attribute
                                           WHERE attrelid = conrelid AND attnum = ANY(conkey))
    FROM pg_constraint WHERE contype IN ('p', 'u')"""

ALL = "all of the tickets' queries"
PAGE = 20
NEWEST_FIRST = ("placed_at DESC", "id DESC")
OLDEST_FIRST = ("placed_at", "id")
CARRIED = {"status", "total_amount"}
MANY_COLUMNS = 4
MOST_INDEXES = 6  # one for each kind of question
MOST_ROOM = 2 / 3  # of the tables they are on


@dataclass(frozen=True)
class Question:
    """A query of a ticket, and what it may cost.

    Attributes:
        did: the request that sends it.
        table: the table it reads.
        equal: the column that it compares for equality.
        order: how it sorts, written as the keys of an index would be.
        blocks: most blocks that it may read.
        rows: most rows that it may read in the table.
        entries: most entries of the index that it uses.
        index_only: whether the index alone must answer it.
        matters: what it would do in production otherwise.
    """

    did: str
    table: str
    sql: str
    parameters: Mapping[str, Any]
    blocks: int
    matters: str
    equal: str = ""
    order: tuple[str, ...] = ()
    rows: int | None = None
    entries: int | None = None
    index_only: bool = False

    @property
    def expected(self) -> str:
        """The bounds in words."""
        bounds = [f"at most {self.blocks:,} blocks"]
        if self.rows:
            bounds.append(f"at most {self.rows:,} rows read")
        if self.entries:
            bounds.append(f"an index of at most {self.entries:,} entries")
        if self.index_only:
            bounds.append("no row looked up in the table")
        return ", ".join(bounds)


@dataclass(frozen=True)
class Answer:
    """How PostgreSQL answered a question.

    Attributes:
        entries: of the largest index that it used.
    """

    question: Question
    plan: Plan
    entries: int

    @property
    def indexes(self) -> set[str]:
        """The indexes that it used, by name."""
        return {node.index for node in self.plan.nodes if node.index}

    @property
    def rows(self) -> int:
        """How many rows it read in the table, kept or not."""
        return sum(node.rows + node.rows_removed for node in self.plan.nodes if node.relation)

    @property
    def sorts(self) -> bool:
        """Whether rows were put in order after they were read."""
        return any("Sort" in node.kind for node in self.plan.nodes)

    @property
    def quick(self) -> bool:
        """Whether it read no more than the question may."""
        most = self.question.rows
        return self.plan.blocks <= self.question.blocks and (most is None or self.rows <= most)

    @property
    def right(self) -> bool:
        """Whether it kept within all bounds."""
        most = self.question.entries
        looked_up = any(node.relation and node.heap_fetches != 0 for node in self.plan.nodes)
        return self.quick and (most is None or self.entries <= most) and not (self.question.index_only and looked_up)

    @property
    def got(self) -> str:
        """The plan in a line, from its innermost step outwards."""
        steps = [node.title for node in reversed(self.plan.nodes) if node.kind not in {"Limit", "Aggregate"}]
        entries = f", in an index of {self.entries:,} entries" if self.question.entries and self.quick else ""
        return f"{', then '.join(steps)}: {self.rows:,} rows read{entries}, {self.plan.blocks:,} blocks"


def ask(tables: Tables, question: Question) -> Answer:
    """Have PostgreSQL answer, and watch it."""
    plan = tables.explain(question.sql, **question.parameters)
    used = [node.index for node in plan.nodes if node.index]
    entries = tables.value(ROWS, names=used) if used and question.entries else 0
    return Answer(question, plan, int(entries))


@pytest.fixture(scope="session")
def refusals() -> dict[str, str]:
    """PostgreSQL refuses a unique index when values repeat: SQLSTATE 23505, unique_violation."""
    return {"23505": "unique_where_values_repeat"}


@pytest.fixture(scope="session")
def indexes(tables: Tables) -> list[Index]:
    """The declared indexes, as PostgreSQL describes them."""
    return tables.indexes()


@pytest.fixture(scope="session")
def questions(tables: Tables) -> dict[str, list[Question]]:
    """What the tickets are about, by ticket."""
    buyers = tables.connection.exec_driver_sql(BUYERS).all()
    best, seldom = buyers[0], next(one for one in buyers if one.orders == 14)
    good = [next(one for one in buyers if one.orders <= most) for most in (400, 200, 100)]
    blocks = {table: tables.value(BLOCKS, name=table) for table in ("orders", "products")}
    return {
        "history": [history(seldom, blocks=14 + 10)],
        "regulars": [
            # The best customer has so many orders that PostgreSQL may well meet twenty among the newest of all.
            history(best, blocks=2 * PAGE),
            *(history(one, blocks=2 * PAGE, rows=3 * PAGE) for one in good),
        ],
        "items": [
            Question(
                did="GET /v1/customers/<id>/orders: the items of one of the orders",
                table="order_items",
                sql=ITEMS,
                parameters={"order": tables.value("SELECT max(id) / 2 FROM orders")},
                equal="order_id",
                blocks=12,
                matters="A page of twenty orders asks this twenty times.",
            )
        ],
        "pending": [
            Question(
                did="GET /v1/orders?status=pending&sort=placed_at&limit=50",
                table="orders",
                sql=PENDING,
                parameters={"status": "pending", "limit": 50},
                equal="status",
                order=OLDEST_FIRST,
                blocks=2 * 50,
                rows=3 * 50,
                entries=tables.value("SELECT count(*) FROM orders") // 10,
                matters="The packers reload this page all day, and what is pending stays few while the orders grow.",
            )
        ],
        "month": [
            Question(
                did="GET /v1/orders?placed_after=2026-03-01T00:00:00Z&placed_before=2026-04-01T00:00:00Z"
                "&sort=placed_at&limit=100",
                table="orders",
                sql=MONTH,
                parameters={"start": "2026-03-01 00:00:00+00", "end": "2026-04-01 00:00:00+00", "limit": 100},
                order=OLDEST_FIRST,
                blocks=blocks["orders"] // 3,
                matters="A month's report should cost what a month holds, and not what the shop has ever sold.",
            )
        ],
        "attributes": [
            Question(
                did=f"GET /v1/products?{query}",
                table="products",
                sql=PRODUCTS,
                parameters={"attributes": attributes},
                blocks=blocks["products"] // 2,
                matters="Every visitor who ticks a filter reads the whole catalogue.",
            )
            for query, attributes in (
                ("colour=turquoise&material=oak", '{"colour": "turquoise", "material": "oak"}'),
                ("colour=pink&tag=gift", '{"colour": "pink", "tags": ["gift"]}'),
            )
        ],
        "total": [
            Question(
                did=f"{TOTAL.replace(':customer', '...')}, {words(one)}",
                table="orders",
                sql=TOTAL,
                parameters={"customer": one.customer_id},
                equal="customer_id",
                blocks=10 + one.orders // 30,
                index_only=True,
                matters="A customer's orders lie in as many blocks of the table: the better the customer, the slower.",
            )
            for one in (best, seldom)
        ],
    }


def history(buyer: Any, *, blocks: int, rows: int | None = None) -> Question:
    """The first page of a customer's orders."""
    return Question(
        did=f"GET /v1/customers/<id>/orders, {words(buyer)}",
        table="orders",
        sql=HISTORY,
        parameters={"customer": buyer.customer_id, "limit": PAGE},
        equal="customer_id",
        order=NEWEST_FIRST,
        blocks=blocks,
        rows=rows,
        matters="The page shows twenty orders at most, whatever the customer or the shop has bought and sold so far.",
    )


def words(buyer: Any) -> str:
    """Who a customer is, without a name."""
    return f"for a customer with {buyer.orders:,} orders"


@pytest.fixture(scope="session")
def answers(tables: Tables, questions: dict[str, list[Question]]) -> dict[str, list[Answer]]:
    """How PostgreSQL answers with all declared indexes in place."""
    return {ticket: [ask(tables, question) for question in asked] for ticket, asked in questions.items()}


# The mistakes


def test_no_index_forbids_what_the_shop_allows(tables: Tables, indexes: list[Index]) -> None:
    """No index forbids what the shop allows."""
    own = [(table, set(columns)) for table, columns in tables.connection.exec_driver_sql(OWN_KEYS)]
    for index in indexes:
        if index.unique and not any(index.table == table and columns <= named(index.keys) for table, columns in own):
            wrong(
                "unique_where_values_repeat",
                did=said(index),
                got="no two rows of the table may agree in these columns any more",
                expected="an index that finds rows and refuses none",
            )


def test_no_table_has_an_index_for_each_column(indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """A table has indexes for its questions, and not one for each of its columns."""
    single = {
        table: {column(index.keys[0]): index for index in indexes if index.table == table and len(index.keys) == 1}
        for table in {index.table for index in indexes}
    }
    table = max(sorted(single), key=lambda name: len(single[name]), default="")
    if table and len(single[table]) >= MANY_COLUMNS:
        found = single[table].values()
        used = names_used(answers)
        idle = sum(index.name not in used for index in found)
        wrong(
            "index_on_every_column",
            did=f"{ALL}, with the indexes on {table}",
            got=f"{len(found)} indexes of one column each, {kilobytes(sum(index.bytes for index in found))};"
            f" {idle} of them used by no query",
            expected="for each question one index, with the columns that the question has",
        )


def test_each_index_can_do_what_it_was_made_for(
    tables: Tables, indexes: list[Index], answers: dict[str, list[Answer]]
) -> None:
    """Each index can do what it was made for."""
    for diagnose in DIAGNOSES:
        diagnose(tables, indexes, answers)


def hash_for_a_range(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """A hash index where a range or an order is asked for."""
    for index in indexes:
        if index.method == "hash" and named(index.keys) == {"placed_at"}:
            blame("hash_for_a_range", index, answers["month"][0])
        ordered = any(other.method == "btree" and leads(other, "customer_id") for other in indexes)
        if index.method == "hash" and leads(index, "customer_id") and not ordered:
            for answer in failing(answers["regulars"]):
                blame("hash_for_a_range", index, answer)


def b_tree_on_a_document(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """An index that can compare whole documents only."""
    for index in indexes:
        if index.method in {"btree", "hash"} and "attributes" in named(index.keys):
            blame("b_tree_on_a_document", index, answers["attributes"][0])


def expression_the_query_does_not_use(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """An expression that stands in no query."""
    used = names_used(answers)
    for index in indexes:
        if any("(" in key for key in index.keys) and index.name not in used:
            slow = next((one for one in failing(flat(answers)) if one.question.table == index.table), None)
            wrong(
                "expression_the_query_does_not_use",
                did=f"{slow.question.did if slow else ALL}, with {said(index)}",
                got=slow.got if slow else "no query uses it",
                expected=slow.question.expected if slow else "an index on what a query says",
            )


def low_selectivity_alone(tables: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """All rows, by a column with hardly any values."""
    few = {(table, name): count for table, name, count in tables.connection.exec_driver_sql(FEW_VALUES)}
    for index in indexes:
        values = few.get((index.table, column(index.keys[0])))
        if values and len(index.keys) == 1 and not index.condition:
            answer = answers["pending"][0]
            used = answer.got if index.name in answer.indexes else f"not used; {answer.got}"
            wrong(
                "low_selectivity_alone",
                did=f"{answer.question.did}, with {said(index)}",
                got=f"{values:.0f} values in all. {used}",
                expected=answer.question.expected,
            )


def condition_the_query_does_not_have(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """Only a partial index begins with what the query compares, and the query does not imply its condition."""
    for answer in failing(answers["history"] + answers["items"]):
        found = [index for index in indexes if serves(index, answer.question)]
        if found and all(index.condition for index in found):
            blame("condition_the_query_does_not_have", found[0], answer)


def wrong_column_order(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """What the query compares for equality is in an index, but never first."""
    for answer in failing(answers["history"] + answers["regulars"] + answers["items"]):
        question = answer.question
        found = [index for index in indexes if index.table == question.table and question.equal in named(index.keys)]
        if found and not any(leads(index, question.equal) for index in found):
            blame("wrong_column_order", found[0], answer)


def sort_direction_mismatch(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """The rows were sorted although the index that found them sorts by the same columns, in other directions."""
    for answer in answers["regulars"] + answers["pending"] + answers["month"]:
        for index in indexes:
            if answer.sorts and index.name in answer.indexes and mismatched(index, answer.question):
                blame("sort_direction_mismatch", index, answer, expected="the order of the index, and no sort")


def two_indexes_for_one_query(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """One index finds the customer's orders, another has all orders by date, and none does both."""
    for answer in failing(answers["regulars"]):
        found = [index for index in indexes if serves(index, answer.question)]
        by_date = [index for index in indexes if leads(index, "placed_at") and not index.condition]
        if found and by_date and all(len(index.keys) == 1 for index in found):
            blame("two_indexes_for_one_query", found[0], answer)


def covering_without_its_column(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """The index carries something for the total, but not all that the total reads."""
    for answer in failing(answers["total"]):
        for index in indexes:
            carried = CARRIED & named(index.keys + index.included)
            meant = "total_amount" in carried or CARRIED & set(index.included)
            if serves(index, answer.question) and meant and carried != CARRIED:
                blame("covering_without_its_column", index, answer)


def whole_table_for_few_rows(_: Tables, indexes: list[Index], answers: dict[str, list[Answer]]) -> None:
    """The few are found quickly, in an index of all."""
    for answer in failing(answers["pending"]):
        for index in indexes:
            if answer.quick and index.name in answer.indexes and not index.condition:
                blame("whole_table_for_few_rows", index, answer)


DIAGNOSES: tuple[Callable[[Tables, list[Index], dict[str, list[Answer]]], None], ...] = (
    hash_for_a_range,
    b_tree_on_a_document,
    expression_the_query_does_not_use,
    low_selectivity_alone,
    condition_the_query_does_not_have,
    wrong_column_order,
    sort_direction_mismatch,
    two_indexes_for_one_query,
    covering_without_its_column,
    whole_table_for_few_rows,
)


def test_no_index_is_the_beginning_of_another(indexes: list[Index]) -> None:
    """No index is the beginning of another."""
    for index in indexes:
        for other in indexes:
            if index is not other and begins(index, other):
                wrong(
                    "redundant_prefix",
                    did=f"compared {said(index)} with {said(other)}",
                    got=f"what the first finds, the second finds too; the first takes {kilobytes(index.bytes)}"
                    " and a write for each new row",
                    expected="the second alone",
                )


# The tickets


def test_a_customers_history_is_found_by_an_index(answers: dict[str, list[Answer]]) -> None:
    """A customer's few orders are found without reading the table."""
    hold(answers["history"])


def test_a_page_of_history_reads_no_more_than_a_page(answers: dict[str, list[Answer]]) -> None:
    """A customer with many orders has a page after PostgreSQL has read no more than a page."""
    hold(answers["regulars"])


def test_an_orders_items_are_found_by_an_index(answers: dict[str, list[Answer]]) -> None:
    """The items of an order are found without reading the table of items."""
    hold(answers["items"])


def test_the_packers_list_reads_pending_orders_alone(answers: dict[str, list[Answer]]) -> None:
    """The packers' list comes from an index of the few orders that are pending."""
    hold(answers["pending"])


def test_a_month_is_read_without_the_other_months(answers: dict[str, list[Answer]]) -> None:
    """Finance's month is read without the other months."""
    hold(answers["month"])


def test_products_are_found_by_what_they_are_like(answers: dict[str, list[Answer]]) -> None:
    """Products are found by their attributes without reading the catalogue."""
    hold(answers["attributes"])


def test_a_customers_total_is_read_from_an_index_alone(answers: dict[str, list[Answer]]) -> None:
    """What a customer has spent is read from an index alone."""
    hold(answers["total"])


# The writes


def test_each_index_is_needed_by_a_ticket(
    tables: Tables, indexes: list[Index], answers: dict[str, list[Answer]]
) -> None:
    """Each index is needed by one of the tickets."""
    for index in indexes:
        users = [answer.question for answer in flat(answers) if index.name in answer.indexes]
        if not users or all(answer.right for answer in without(tables, index, users)):
            differs(
                did=f"{ALL}, with and without {said(index)}",
                got="each keeps within its bounds without it" if users else "no query uses it",
                expected="only indexes that a ticket needs",
                matters=f"It takes {kilobytes(index.bytes)} here, and every new row is entered in it as well.",
            )


def test_the_indexes_keep_within_their_budget(tables: Tables, indexes: list[Index]) -> None:
    """All indexes together keep within their budget."""
    room = sum(index.bytes for index in indexes)
    most = MOST_ROOM * 8192 * sum(tables.value(BLOCKS, name=name) for name in ("orders", "order_items", "products"))
    if len(indexes) > MOST_INDEXES or room > most:
        differs(
            did="counted the indexes and their bytes",
            got=f"{len(indexes)} indexes, {kilobytes(room)}",
            expected=f"at most {MOST_INDEXES}, and {kilobytes(most)}: two thirds of the tables that they are on",
            matters="They compete with the tables for memory, and each is written, logged and sent to the replicas.",
        )


def hold(answers: list[Answer]) -> None:
    """Fail with the first answer that is out of bounds."""
    for answer in failing(answers):
        question = answer.question
        differs(did=question.did, got=answer.got, expected=question.expected, matters=question.matters)


def blame(mistake: str, index: Index, answer: Answer, expected: str = "") -> NoReturn:
    """Fail with a mistake in an index that an answer shows."""
    wrong(
        mistake,
        did=f"{answer.question.did}, with {said(index)}",
        got=answer.got,
        expected=expected or answer.question.expected,
    )


def without(tables: Tables, index: Index, questions: list[Question]) -> list[Answer]:
    """How PostgreSQL answers without an index."""
    with tables.connection.begin_nested() as savepoint:
        tables.connection.exec_driver_sql(f'DROP INDEX "{index.name}"')
        answers = [ask(tables, question) for question in questions]
        savepoint.rollback()
    return answers


def failing(answers: list[Answer]) -> "filter[Answer]":
    """The answers that are out of bounds."""
    return filter(lambda answer: not answer.right, answers)


def flat(answers: dict[str, list[Answer]]) -> list[Answer]:
    """The answers of all tickets."""
    return [answer for some in answers.values() for answer in some]


def names_used(answers: dict[str, list[Answer]]) -> set[str]:
    """The indexes that at least one query used."""
    return {name for answer in flat(answers) for name in answer.indexes}


def column(key: str) -> str:
    """The column of an index's key; an expression as it is."""
    return key if "(" in key else key.split(maxsplit=1)[0]


def named(keys: tuple[str, ...]) -> set[str]:
    """The columns of several keys."""
    return {column(key) for key in keys}


def leads(index: Index, name: str) -> bool:
    """Whether a column is the first of an index."""
    return column(index.keys[0]) == name


def serves(index: Index, question: Question) -> bool:
    """Whether an index begins with what a question compares for equality."""
    return index.table == question.table and leads(index, question.equal)


def mismatched(index: Index, question: Question) -> bool:
    """Whether an index sorts by the question's columns in other directions, read either way."""
    keys = index.keys[1:] if question.equal and leads(index, question.equal) else index.keys
    same = 0
    while same < min(len(keys), len(question.order)) and column(keys[same]) == column(question.order[same]):
        same += 1
    wanted = question.order[:same]
    return keys[:same] not in (wanted, tuple(backwards(key) for key in wanted))


def backwards(key: str) -> str:
    """A key as it is when the index is read from its end."""
    return key.removesuffix(" DESC") if key.endswith(" DESC") else f"{key} DESC"


def begins(index: Index, other: Index) -> bool:
    """Whether whatever an index finds, another finds too."""
    ordered, longer = ([column(key) for key in one.keys] for one in (index, other))
    return (
        (index.table, index.method, index.condition) == (other.table, other.method, other.condition)
        and index.method == "btree"
        and longer[: len(ordered)] == ordered
        and set(index.included) <= {*longer, *other.included}
    )


def said(index: Index) -> str:
    """An index as its statement has it."""
    return f"{index.name} on {index.definition.partition(' ON ')[2].removeprefix('public.')}"


def kilobytes(size: float) -> str:
    """A size in words."""
    return f"{size / 1024:,.0f} kB"
