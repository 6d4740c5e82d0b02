"""How PostgreSQL did it: a statement's plan with what was really read, made readable.

The display shows what is the same on every run: nodes, rows and blocks. Times are shown when they are
asked for. The planner's estimates are kept on the nodes but not drawn, because ANALYZE samples at random.

Source: PostgreSQL manual, EXPLAIN and "Using EXPLAIN".
"""

import html
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Engine, Insert, Update, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.compiler import SQLCompiler

WIDTH = 80
BRANCH = "  "


@dataclass(frozen=True)
class PlanNode:
    """One step of a plan.

    Attributes:
        kind: PostgreSQL's name of the step, such as `Index Only Scan`.
        label: the name as psql shows it, such as `Parallel Seq Scan` or `Hash Left Join`.
        relation: the table, or None.
        index: the index, or None.
        condition: what rows had to satisfy, without PostgreSQL's outer brackets and casts of literals.
        rows: rows it gave, over all its loops.
        estimated_rows: rows that the planner expected of one loop.
        loops: how often it ran; 0 when it never did.
        blocks: blocks of 8 kB that it and the steps below it asked for, in shared memory or not.
        own_blocks: the same without the steps below it.
        rows_removed: rows it read and threw away, by a filter or a recheck, over all its loops.
        heap_fetches: rows that an index-only scan had to look up in the table; None for other steps.
        spilled_blocks: blocks it and the steps below it wrote to temporary files.
        notes: more that explains the step: sort keys, how a sort or hash was done.
        processes: how many processes share the step, each running it once or more.
        milliseconds: time it and the steps below it took, over all loops of one process; None unless it was
            asked for.
        depth: how many steps are above it.
        children: the steps below it.
    """

    kind: str
    label: str
    relation: str | None
    index: str | None
    condition: str
    rows: int
    estimated_rows: int
    loops: int
    blocks: int
    own_blocks: int
    rows_removed: int
    heap_fetches: int | None
    spilled_blocks: int
    notes: tuple[str, ...]
    processes: int
    milliseconds: float | None
    depth: int
    children: tuple["PlanNode", ...]

    def walk(self) -> Iterator["PlanNode"]:
        """This step and all below it, in the order in which they are shown."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def title(self) -> str:
        """The step in a few words: what it is, of what, by which index."""
        of = f" on {self.relation}" if self.relation else ""
        by = f" using {self.index}" if self.index else ""
        return f"{self.label}{of}{by}"

    @property
    def details(self) -> list[str]:
        """What else there is to say of the step, a line each."""
        lines = [f"where {self.condition}"] if self.condition else []
        lines += self.notes
        if self.rows_removed:
            lines.append(f"{_counted(self.rows_removed, 'row')} read and thrown away")
        if self.heap_fetches is not None:
            lines.append(f"{_counted(self.heap_fetches, 'row')} looked up in the table")
        if self.loops > self.processes:
            lines.append(f"ran {self.loops:,} times")
        return lines


@dataclass(frozen=True)
class Plan:
    """A statement's plan, as it was executed.

    Attributes:
        root: the topmost step.
        milliseconds: the statement's execution time; None unless it was asked for.
        wal_records: entries that it added to the write-ahead log.
        wal_bytes: their size in bytes.
        raw: what PostgreSQL answered.
    """

    root: PlanNode
    milliseconds: float | None
    wal_records: int
    wal_bytes: int
    raw: Mapping[str, Any]

    @property
    def nodes(self) -> list[PlanNode]:
        """All steps, the topmost first."""
        return list(self.root.walk())

    @property
    def blocks(self) -> int:
        """Blocks of 8 kB that the statement asked for, in shared memory or not."""
        return self.root.blocks

    @property
    def rows(self) -> int:
        """Rows that the statement gave."""
        return self.root.rows

    def uses(self, kind: str, index: str | None = None) -> bool:
        """Whether a step of this kind was in the plan.

        Args:
            kind: PostgreSQL's name, such as `Index Only Scan`.
            index: the index that it must have used; None for any or none.
        """
        return any(node.kind == kind and index in (None, node.index) for node in self.nodes)

    def __repr__(self) -> str:
        """The plan in 80 columns."""
        timed = self.milliseconds is not None
        columns = ["rows", "blocks", "own", *(["ms"] if timed else [])]
        lines = _rows("", " ", columns)
        for node in self.root.walk():
            figures = [f"{node.rows:,}", f"{node.blocks:,}", f"{node.own_blocks:,}"]
            if node.milliseconds is not None:
                figures.append(f"{node.milliseconds:,.1f}")
            if not node.loops:
                figures = ["never ran", "", *figures[2:]]
            lines += _rows(BRANCH * node.depth, node.title, figures)
            indent = BRANCH * (node.depth + 2)
            for detail in node.details:
                lines += textwrap.wrap(detail, WIDTH, initial_indent=indent, subsequent_indent=indent)
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        total = max(self.blocks, 1)
        taken = f" in {self.milliseconds:,.1f} ms" if self.milliseconds is not None else ""
        summary = f"{_counted(self.rows, 'row')} from {_counted(self.blocks, 'block')}{taken}"
        return (
            f'<div class="sf-plan"><style>{_STYLE}</style><p class="sf-plan-summary">{summary}</p>'
            f"<ul>{_node_html(self.root, total)}</ul></div>"
        )


def explain(
    target: Connection | Session | Engine,
    statement: str | Executable,
    params: Mapping[str, Any] | None = None,
    *,
    timing: bool = False,
) -> Plan:
    """Execute a statement and return PostgreSQL's plan of it.

    Whatever the statement writes is undone, and a transaction that was open stays open and usable.

    Args:
        target: where to run it. An engine lends a connection of its own.
        statement: SQL with `:name` parameters, or anything that SQLAlchemy executes.
        params: values of the parameters.
        timing: also measure the time of each step. That slows the statement down and differs from run to run.

    Raises:
        sqlalchemy.exc.DBAPIError: the statement is not valid.
    """
    with _undone(target) as connection:
        question = _Explain(text(statement) if isinstance(statement, str) else statement, timing=timing)
        (answer,) = connection.execute(question, dict(params or {})).scalar_one()
    return plan_of(answer, timing=timing)


def plan_of(answer: Mapping[str, Any], *, timing: bool = False) -> Plan:
    """What EXPLAIN (ANALYZE, BUFFERS, WAL, FORMAT JSON) answered for one statement, as a plan.

    Args:
        answer: the only member of its list.
        timing: whether it was asked for times.
    """
    top = answer["Plan"]
    return Plan(
        root=_node(top),
        milliseconds=float(answer["Execution Time"]) if timing else None,
        wal_records=int(top.get("WAL Records", 0)),
        wal_bytes=int(top.get("WAL Bytes", 0)),
        raw=answer,
    )


class _Explain(Executable, ClauseElement):
    """EXPLAIN around another statement, whose parameters are bound as they would be without it."""

    inherit_cache = False

    def __init__(self, statement: Executable, *, timing: bool) -> None:
        # Without `inline`, SQLAlchemy would add a RETURNING clause and look for a new key in the plan.
        self.statement = statement.inline() if isinstance(statement, Insert | Update) else statement
        self.timing = timing


@compiles(_Explain, "postgresql")
def _explain_sql(element: _Explain, compiler: SQLCompiler, **arguments: Any) -> str:
    timing = "ON" if element.timing else "OFF"
    prefix = f"EXPLAIN (ANALYZE, BUFFERS, WAL, TIMING {timing}, FORMAT JSON) "
    statement = compiler.process(cast("ClauseElement", element.statement), **arguments)
    compiler.isinsert = compiler.isupdate = compiler.isdelete = False  # what comes back is a plan
    return prefix + statement


@contextmanager
def _undone(target: Connection | Session | Engine) -> Iterator[Connection]:
    """A connection on which everything that the block does is rolled back, and nothing else."""
    with ExitStack() as leaving:
        if isinstance(target, Engine):
            connection = leaving.enter_context(target.connect())
        else:
            connection = target.connection() if isinstance(target, Session) else target
        driver: Any = connection.connection.driver_connection
        if driver.autocommit:
            # A savepoint needs a transaction, and SQLAlchemy opens none here.
            connection.exec_driver_sql("BEGIN")
            leaving.callback(connection.exec_driver_sql, "ROLLBACK")
        else:
            if isinstance(target, Connection) and not target.in_transaction():
                leaving.callback(target.rollback)
            leaving.callback(connection.begin_nested().rollback)
        yield connection


def _node(plan: Mapping[str, Any], depth: int = 0, processes: int = 1) -> PlanNode:
    # A Gather's own process works beside those that it launches.
    below = 1 + int(plan["Workers Launched"]) if "Workers Launched" in plan else processes
    children = tuple(_node(child, depth + 1, below) for child in plan.get("Plans", ()))
    loops = int(plan["Actual Loops"])
    total_time = plan.get("Actual Total Time")
    blocks = _blocks(plan)
    return PlanNode(
        kind=plan["Node Type"],
        label=_label(plan),
        relation=plan.get("Relation Name"),
        index=plan.get("Index Name"),
        condition=_condition(plan),
        rows=round(plan["Actual Rows"] * loops),
        estimated_rows=int(plan["Plan Rows"]),
        loops=loops,
        blocks=blocks,
        own_blocks=_own_blocks(plan, blocks),
        rows_removed=sum(
            round(plan.get(name, 0) * loops)
            for name in ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
        ),
        heap_fetches=plan.get("Heap Fetches"),
        spilled_blocks=int(plan.get("Temp Written Blocks", 0)),
        notes=_notes(plan),
        processes=processes,
        milliseconds=None if total_time is None else total_time * loops / processes,
        depth=depth,
        children=children,
    )


def _blocks(plan: Mapping[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def _own_blocks(plan: Mapping[str, Any], blocks: int) -> int:
    """What the step itself asked for.

    A common table expression is listed below the step that defines it, but runs inside the scan that reads it:
    the scan asks for nothing itself, and the step above has counted it there. What an InitPlan read may be
    counted in a step beside it, so the difference can be negative.
    """
    if plan["Node Type"] == "CTE Scan":
        return 0
    below = [child for child in plan.get("Plans", ()) if not child.get("Subplan Name", "").startswith("CTE ")]
    return max(0, blocks - sum(_blocks(child) for child in below))


def _label(plan: Mapping[str, Any]) -> str:
    """The step's name as EXPLAIN's text format has it."""
    kind = plan["Node Type"]
    if kind == "Aggregate":
        kind = {"Hashed": "Hash Aggregate", "Sorted": "Group Aggregate"}.get(plan.get("Strategy", ""), kind)
        mode = plan.get("Partial Mode", "Simple")
        kind = kind if mode == "Simple" else f"{mode} {kind}"
    elif kind == "ModifyTable":
        kind = plan["Operation"]
    elif (join := plan.get("Join Type", "Inner")) != "Inner":
        kind = f"Nested Loop {join} Join" if kind == "Nested Loop" else f"{kind.removesuffix(' Join')} {join} Join"
    if plan.get("Scan Direction") == "Backward":
        kind = f"{kind} Backward"
    if plan.get("Parallel Aware"):
        kind = f"Parallel {kind}"
    subplan = plan.get("Subplan Name")
    return f"{subplan}: {kind}" if subplan else kind


def _condition(plan: Mapping[str, Any]) -> str:
    """All that rows had to satisfy. A bitmap scan's recheck repeats the condition of its index scan below."""
    names = ("Index Cond", "Hash Cond", "Merge Cond", "Join Filter", "Filter", "TID Cond")
    conditions = [_plain(plan[name]) for name in names if name in plan]
    return " and ".join(conditions)


def _plain(condition: str) -> str:
    """A condition without its outer brackets and the casts of its literals."""
    condition = re.sub(r"'(-?[\d.]+)'::(?:bigint|integer|smallint|numeric)\b", r"\1", condition)
    condition = re.sub(
        r"('(?:[^']|'')*')::(?:text|character varying|uuid|date|timestamp with(?:out)? time zone)(?:\(\d+\))?(?!\w|\[)",
        r"\1",
        condition,
    )
    return _without_outer_brackets(condition)


def _without_outer_brackets(condition: str) -> str:
    depth = 0
    for position, character in enumerate(condition):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            wraps_all = position == len(condition) - 1 and condition.startswith("(")
            return condition[1:-1] if wraps_all else condition
    return condition


def _notes(plan: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        f"{words} {', '.join(plan[name])}"
        for name, words in (("Sort Key", "by"), ("Presorted Key", "already sorted by"), ("Group Key", "by"))
        if name in plan
    ]
    if "Sort Method" in plan:
        on_disk = plan.get("Sort Space Type") == "Disk"
        notes.append(plan["Sort Method"] + (f", {plan['Sort Space Used']:,} kB on disk" if on_disk else ""))
    if plan.get("Lossy Heap Blocks"):
        notes.append(f"{_counted(plan['Lossy Heap Blocks'], 'block')} known only as a whole")
    if plan.get("Workers Launched"):
        notes.append(f"what is below ran in {1 + plan['Workers Launched']} processes")
    if plan.get("Hash Batches", 1) > 1:
        notes.append(f"in {plan['Hash Batches']} batches, on disk in between")
    return tuple(notes)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _rows(indent: str, title: str, figures: list[str]) -> list[str]:
    """One step of the text form: the title left, over as many lines as it needs, the figures beside the first."""
    right = "".join(figure.rjust(10) for figure in figures)
    room = max(20, WIDTH - len(right) - 1)
    first, *more = textwrap.wrap(title, room, initial_indent=indent, subsequent_indent=indent + BRANCH) or [""]
    return [first.ljust(WIDTH - len(right)) + right, *more]


def _node_html(node: PlanNode, total: int) -> str:
    """One step and those below it; the bar is the blocks it asked for, of all that the statement asked for."""
    place = f" on <b>{html.escape(node.relation)}</b>" if node.relation else ""
    index = f" using <code>{html.escape(node.index)}</code>" if node.index else ""
    details = html.escape("; ".join(node.details))
    figures = f"{_counted(node.rows, 'row')}, {_counted(node.blocks, 'block')}" if node.loops else "never ran"
    if node.children and node.own_blocks:
        figures += f" ({node.own_blocks:,} its own)"
    if node.milliseconds is not None:
        figures += f", {node.milliseconds:,.1f} ms"
    own, below = (100 * node.own_blocks / total, 100 * max(0, node.blocks - node.own_blocks) / total)
    bar = (
        f'<span class="sf-plan-bar" aria-hidden="true"><i style="width:{own:.1f}%"></i>'
        f'<u style="width:{below:.1f}%"></u></span>'
    )
    children = "".join(_node_html(child, total) for child in node.children)
    return (
        f'<li><div class="sf-plan-node"><span class="sf-plan-kind">{html.escape(node.label)}</span>{place}{index}</div>'
        + (f'<div class="sf-plan-detail">{details}</div>' if details else "")
        + f'<div class="sf-plan-figures">{bar}{figures}</div>'
        + (f"<ul>{children}</ul>" if children else "")
        + "</li>"
    )


# Every selector is inside :where(), so that whatever the book's own style sheet says wins.
_STYLE = (
    ":where(.sf-plan){font-size:.9em;line-height:1.45;overflow-wrap:anywhere}"
    ":where(.sf-plan p){margin:0 0 .4em;font-weight:600}"
    ":where(.sf-plan ul){list-style:none;margin:0;padding:0}"
    ":where(.sf-plan ul ul){margin-left:.45em;padding-left:.75em;border-left:1px solid var(--sf-rule,#8886)}"
    ":where(.sf-plan li){margin:.35em 0 0;padding:0}"
    ":where(.sf-plan-kind){font-weight:600}"
    ":where(.sf-plan-detail){opacity:.8;padding-left:1em}"
    ":where(.sf-plan-figures){display:flex;align-items:center;gap:.6em;font-variant-numeric:tabular-nums}"
    ":where(.sf-plan-bar){display:flex;flex:0 0 5.5em;height:.5em;background:var(--sf-rule,#8883)}"
    ":where(.sf-plan-bar i){background:var(--sf-series-1,#1f6f8b)}"
    ":where(.sf-plan-bar u){background:var(--sf-series-1,#1f6f8b);opacity:.35}"
)
