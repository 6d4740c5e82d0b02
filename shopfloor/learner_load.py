"""The learner's own service under load, beside the naive one."""

import html
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import text

from shopfloor import databases, files, stages
from shopfloor.console import out, step
from shopfloor.desk import Desk
from shopfloor.errors import UserError
from shopfloor.labs import Lab
from shopfloor.load import LoadResult, load
from shopfloor.services import Services, running_services
from shopfloor.words import shown, tell

NAIVE, YOURS = "naive", "yours"
SIZE: databases.Size = "medium"

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }}
th, td {{ padding: .2rem .8rem; text-align: right }}
th:first-child, caption {{ text-align: left }}
</style>
<h1>{title}</h1>
<p>{words}</p>
{table}
{plot}
</html>
"""


def run(address: str) -> None:
    """Load the naive shop and the learner's with a lab's users; print the figures and write the plot.

    Args:
        address: of the lab; the current one when empty.

    Raises:
        UserError: the lab has no load, or a shop does not start or answer.
    """
    desk = Desk()
    lab = desk.lab(address)
    users = lab.folder / "load.py"
    if not users.is_file():
        raise UserError(f"{lab.address} is not about performance: it has no load.")
    content = desk.content(lab)
    if content is None:
        raise UserError(desk.gone(lab))
    shops = {NAIVE: stages.build("naive"), YOURS: stages.build_with({lab.address: content})}
    with step("Load") as say, running_services(progress=say) as services, ExitStack() as running:
        servers = {}
        for name, stage in shops.items():
            say(f"starting the {name} shop")
            clone = running.enter_context(databases.clone(services, SIZE, progress=say))
            servers[name] = running.enter_context(
                stages.serve(stage, database_url=clone.url, redis_url=services.redis_url)
            )
        data = _data(lab, services)
        say("the same users ask the naive shop, then yours")
        result = load(servers, users, data=data)
        say(f"{result.users} users at once")
    words = in_words(result)
    target = desk.workspace.folder / "load" / f"{lab.address}.html"
    files.write(target, page(lab, words, result).encode())
    tell(words)
    tell("The plot, to open in a browser:")
    out.print(f"    {shown(target)}", markup=False)


def in_words(result: LoadResult) -> str:
    """The figures, and what they come to."""
    lines = []
    for name, title in ((NAIVE, "The naive shop"), (YOURS, "Yours")):
        failed = result.failures[name]
        lines.append(
            f"{title}: {result.throughput[name]:,.0f} answers a second, half of them within "
            f"{result.p50[name]:,.0f} ms, 95 of 100 within {result.p95[name]:,.0f} ms"
            + (f", {failed:,} failed" if failed else "")
            + "."
        )
    ratio = result.ratio(YOURS, NAIVE)
    if 0.8 <= ratio <= 1.25:
        lines.append("That is no difference to speak of.")
    elif ratio > 1:
        lines.append(f"Yours answers {ratio:.1f} times as many.")
    else:
        lines.append(f"Yours answers fewer: {ratio:.2f} of what the naive shop does.")
    if result.busy:
        lines.append("The machine was busy with something else: measure again when it is not.")
    return "\n".join(lines)


def page(lab: Lab, words: str, result: LoadResult) -> str:
    """The plot as a page of its own that needs no other file."""
    return PAGE.format(
        title=html.escape(f"{lab.address} under load"),
        words="<br>".join(map(html.escape, words.splitlines())),
        table=_html(result),
        plot=_html(result.plot()),
    )


def _html(shown: Any) -> str:
    """What a notebook would show."""
    return str(shown._repr_html_())


def _data(lab: Lab, services: Services) -> object:
    """What the lab's users need to know: the first column of `load_data`, a query in its `lab.toml`."""
    query = tomllib.loads(Path(lab.folder, "lab.toml").read_text(encoding="utf-8")).get("load_data")
    if query is None:
        return None
    with databases.clone(services, SIZE) as clone, clone.session() as session:
        return [str(value) for value in session.scalars(text(query))]
