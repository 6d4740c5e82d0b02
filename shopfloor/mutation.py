"""Change a lab's solution in small ways, and see whether its checks notice.

A changed solution that still passes is a survivor: either the change makes no difference to what the lab asks for, and
`survivors.toml` in the lab's folder says why, or a check is missing.

    [equivalent]
    "without `innerjoin=True` in `joinedload(Order.customer, innerjoin=True)`" = "an outer join finds the same"
"""

import ast
import re
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shopfloor.checks.many import check_many
from shopfloor.errors import UserError
from shopfloor.labs import Lab
from shopfloor.services import Services

SURVIVORS = "survivors.toml"


@dataclass(frozen=True)
class Mutant:
    """A solution with one change.

    Attributes:
        change: what was changed, in words.
        source: the whole file.
    """

    change: str
    source: str


@dataclass(frozen=True)
class Report:
    """What became of the mutants of a lab.

    Attributes:
        address: of the lab.
        mutants: how many there were.
        survivors: the changes that no check noticed.
        equivalent: those that `survivors.toml` declares, with the reason.
    """

    address: str
    mutants: int
    survivors: tuple[str, ...]
    equivalent: dict[str, str]

    @property
    def problems(self) -> list[str]:
        """What does not hold, in sentences."""
        unknown = [change for change in self.survivors if change not in self.equivalent]
        stale = [change for change in self.equivalent if change not in self.survivors]
        return [
            *(f"No check notices a solution changed so: {change}." for change in unknown),
            *(f"{SURVIVORS} declares what does not survive: {change}." for change in stale),
        ]

    def summary(self) -> str:
        """The share that survived, and the declared survivors with their reasons."""
        share = len(self.survivors) / self.mutants if self.mutants else 0
        lines = [f"{self.address}: {len(self.survivors)} of {self.mutants} mutants survive ({share:.0%})."]
        lines += [f"    {change}: {why}" for change, why in self.equivalent.items() if change in self.survivors]
        return "\n".join(lines)


def mutate(lab: Lab, services: Services, progress: Callable[[str], None]) -> Report:
    """Check every mutant of a lab's solution.

    Raises:
        UserError: `survivors.toml` is not well formed.
    """
    equivalent = _equivalent(lab)
    found = list(mutants(lab.solution.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.py") for number in range(len(found))]
        for file, mutant in zip(files, found, strict=True):
            file.write_text(mutant.source, encoding="utf-8")
        verdicts = check_many(services, [(lab, file) for file in files], progress)
    survivors = [mutant.change for mutant, verdict in zip(found, verdicts, strict=True) if verdict.passed]
    return Report(lab.address, len(found), tuple(survivors), equivalent)


def _equivalent(lab: Lab) -> dict[str, str]:
    path = lab.folder / SURVIVORS
    if not path.exists():
        return {}
    try:
        declared = tomllib.loads(path.read_text(encoding="utf-8"))["equivalent"]
        if not all(isinstance(why, str) and why.strip() for why in declared.values()):
            raise TypeError("each change has a reason, a text")
        return dict(declared)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not well formed: {error}") from error


def mutants(source: str) -> Iterator[Mutant]:
    """Every change of a program that is made here, one at a time."""
    seen: Counter[str] = Counter()
    for place, node in enumerate(_living(ast.parse(source))):
        for number, (words, _) in enumerate(_changes(node)):
            tree = ast.parse(source)  # anew: a change is made in it
            old = _living(tree)[place]
            new = list(_changes(old))[number][1]
            changed = ast.unparse(ast.fix_missing_locations(_Replace(old, new).visit(tree)))
            seen[words] += 1
            yield Mutant(words if seen[words] == 1 else f"{words} ({seen[words]})", changed)


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Put the one in the other's place."""
        return self._new if node is self._old else self.generic_visit(node)


def _living(tree: ast.AST) -> list[ast.expr]:
    """The expressions that do something: not annotations and docstrings."""
    found: list[ast.expr] = []
    for name, value in ast.iter_fields(tree):
        if name in {"annotation", "returns"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if not isinstance(child, ast.AST) or is_docstring:
                continue
            if isinstance(child, ast.expr):
                found.append(child)
            found += _living(child)
    return found


def _changes(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """What can be done to an expression, each in words and as what stands in its place."""
    match node:
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                rest = [other for other in elements if other is not element]
                yield _without(element), type(node)(elts=rest, ctx=ast.Load())
        case ast.Call():
            yield from _changes_of_call(node)
        case ast.Attribute(attr="desc" | "asc" as direction):
            other = "asc" if direction == "desc" else "desc"
            yield f"`{other}` in {_shown(node)}", ast.Attribute(node.value, other, node.ctx)
        case ast.Compare(ops=[ast.Eq()]):
            yield f"`!=` in {_shown(node)}", ast.Compare(node.left, [ast.NotEq()], node.comparators)
        case ast.Constant(value=value) if type(value) is int:  # a flag, which is one too, is left out below
            yield f"`{value + 1}` for `{value}`", ast.Constant(value + 1)
        case ast.Constant(value=str(value)):
            yield from ((words, ast.Constant(statement)) for words, statement in _changes_of_sql(value))


def _changes_of_call(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    for argument in node.args:
        rest = [other for other in node.args if other is not argument]
        yield f"{_without(argument)} in {_shown(node)}", ast.Call(node.func, rest, node.keywords)
    for keyword in node.keywords:
        others = [other for other in node.keywords if other is not keyword]
        yield f"without `{ast.unparse(keyword)}` in {_shown(node)}", ast.Call(node.func, node.args, others)
    if isinstance(node.func, ast.Attribute):
        yield f"without the call in {_shown(node)}", node.func.value


def _changes_of_sql(text: str) -> Iterator[tuple[str, str]]:
    """What can be done to a statement that creates an index."""
    statement = " ".join(text.split())
    if created := re.match(r"CREATE INDEX (\w+)", statement):
        for words, changed in _other_indexes(statement):
            if changed != statement:
                yield f"{created[1]} {words}", changed


def _other_indexes(statement: str) -> Iterator[tuple[str, str]]:
    for listed in re.finditer(r"\(([^()]+)\)", statement):
        items = [item.strip() for item in listed[1].split(",")]
        before, after = statement[: listed.start(1)], statement[listed.end(1) :]
        for place, item in enumerate(items):
            rest = items[:place] + items[place + 1 :]
            if rest:
                yield f"without {item}", before + ", ".join(rest) + after
                yield f"with {item} last", before + ", ".join([*rest, item]) + after
            turned = item.removesuffix(" DESC") if item.endswith(" DESC") else f"{item} DESC"
            if "INCLUDE" not in before:
                in_place = [*items[:place], turned, *items[place + 1 :]]
                yield f"with {turned} for {item}", before + ", ".join(in_place) + after
    for pattern, words in (
        (r" WHERE .*", "without its condition"),
        (r" INCLUDE \([^)]*\)", "without what it includes"),
        (r" USING \w+", "of the usual method"),
        (r" \w+_ops\b", "of the usual operator class"),
    ):
        yield words, re.sub(pattern, "", statement)
    yield "as a hash index", re.sub(r"( ON \w+)(?: USING \w+)?", r"\1 USING hash", statement)
    yield "as a unique index", statement.replace("CREATE INDEX", "CREATE UNIQUE INDEX")
    yield "of another value", re.sub(r"'[^']*'", "'x'", statement)


def _without(node: ast.expr) -> str:
    return f"without {_shown(node)}"


def _shown(node: ast.expr) -> str:
    return f"`{_short(ast.unparse(node))}`"


def _short(text: str) -> str:
    """One line, its beginning and its end."""
    words = " ".join(text.split())
    return words if len(words) <= 70 else f"{words[:35]} ... {words[-30:]}"
