"""The learner's own service under load, beside the naive one, and while something outside of it fails."""

import html
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import text

from shopfloor import databases, files, stages
from shopfloor.console import out, step
from shopfloor.desk import Desk
from shopfloor.errors import UserError
from shopfloor.labs import Lab, LabOutage
from shopfloor.load import LoadResult, Outage, load
from shopfloor.paths import material
from shopfloor.services import Services, running_services
from shopfloor.services.delivery import start_delivery
from shopfloor.services.fault_plan import Plan
from shopfloor.services.payments import start_payments
from shopfloor.services.providers import ProviderProcess
from shopfloor.services.valkey import private_valkey
from shopfloor.stages import Server, Stage
from shopfloor.words import shown, tell

NAIVE, YOURS = "naive", "yours"
TITLES = {NAIVE: "the naive shop", YOURS: "yours"}
SIZE: databases.Size = "medium"
PROVIDERS = {"payments": start_payments, "delivery": start_delivery}

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
    shops = {NAIVE: stages.build(lab.solved), YOURS: _with_theirs(lab, content)}
    with step("Load") as say, running_services(progress=say) as services, ExitStack() as running:
        servers, outside = {}, []
        for name, stage in shops.items():
            say(f"starting the {name} shop")
            providers = running.enter_context(_providers(lab.load.providers))
            outside.append(providers)
            clone = running.enter_context(databases.clone(services, SIZE, progress=say))
            redis_url = running.enter_context(private_valkey(material().state))
            servers[name] = running.enter_context(_serve(lab, stage, clone.url, redis_url, providers))
        data = _data(lab, services)
        say("the same users ask the naive shop, then yours")
        outages = [_outage(lab.load.outage, outside)] if lab.load.outage else []
        result = load(servers, users, users=lab.load.users, seconds=lab.load.seconds, data=data, events=outages)
        say(f"{result.users} users at once")
    words = in_words(result)
    target = desk.workspace.folder / "load" / f"{lab.address}.html"
    files.write(target, page(lab, words, result).encode())
    tell(words)
    tell("The plot, to open in a browser:")
    out.print(f"    {shown(target)}", markup=False)


def _with_theirs(lab: Lab, content: bytes) -> Stage:
    """The shop that the lab is about, with the learner's file."""
    solutions = stages.solved_topics()
    solved = {topic: solutions[topic].read_bytes() for topic in lab.solved}
    return stages.build_with(solved | {lab.address: content})


@contextmanager
def _providers(names: Sequence[str]) -> Iterator[dict[str, ProviderProcess]]:
    """Providers of one shop's own: what the other was charged for is not to be taken for a repetition."""
    with TemporaryDirectory() as logs, ExitStack() as running:
        yield {name: running.enter_context(PROVIDERS[name](log=Path(logs, f"{name}.log"))) for name in names}


def _serve(
    lab: Lab, stage: Stage, database_url: str, redis_url: str, providers: Mapping[str, ProviderProcess]
) -> AbstractContextManager[Server]:
    urls = {f"{name.upper()}_URL": provider.url for name, provider in providers.items()}
    settings = {**urls, **lab.load.settings}
    return stages.serve(stage, database_url=database_url, redis_url=redis_url, settings=settings)


def _outage(outage: LabOutage, outside: Sequence[Mapping[str, ProviderProcess]]) -> Outage:
    """The lab's outage, of every shop's provider: only one shop is asked at a time."""
    sick = Plan(rates={outage.fault: 1.0})

    def become(plan: Plan) -> None:
        for providers in outside:
            providers[outage.provider].plan = plan

    name = f"{outage.provider}: {outage.fault}"
    return Outage(name, outage.start, outage.end, lambda: become(sick), lambda: become(Plan()))


def in_words(result: LoadResult) -> str:
    """The figures, and what they come to."""
    lines = [_figures(result, name, title) for name, title in ((NAIVE, "The naive shop"), (YOURS, "Yours"))]
    lines.append(_verdict(result.ratio(YOURS, NAIVE)))
    if len(result.named) > 1 and not result.spans.get(YOURS):
        for request, one in result.named.items():
            lines += [_figures(one, name, f"{request}, {title}") for name, title in TITLES.items()]
    for outage, span in result.spans.get(YOURS, {}).items():
        lines.append(f"During the outage ({outage}), seconds {span.start:.0f} to {span.end:.0f}:")
        lines += _through(result, outage)
    if result.busy:
        lines.append("The machine was busy with something else: measure again when it is not.")
    return "\n".join(lines)


def _figures(result: LoadResult, name: str, title: str) -> str:
    """What one shop did; without latencies, if nothing ended."""
    failed = f", {result.failures[name]:,} failed" if result.failures[name] else ""
    latency = f", half of them within {result.p50[name]:,.0f} ms, 95 of 100 within {result.p95[name]:,.0f} ms"
    if math.isnan(result.p50[name]):
        latency = ""
    return f"{title}: {result.throughput[name]:,.0f} answers a second{latency}{failed}."


def _verdict(ratio: float) -> str:
    if 0.8 <= ratio <= 1.25:
        return "That is no difference to speak of."
    if ratio > 1:
        return f"Yours answers {ratio:.1f} times as many."
    return f"Yours answers fewer: {ratio:.2f} of what the naive shop does."


def _through(result: LoadResult, outage: str) -> list[str]:
    """What became of each kind of request in an outage, shop by shop."""
    lines = []
    for request, one in result.named.items():
        before, during = one.before(outage), one.during(outage)
        for name, title in TITLES.items():
            failed = f", {during.failures[name]:,} failed" if during.failures[name] else ""
            counts = f"{before.throughput[name]:,.0f} answers a second before, {during.throughput[name]:,.0f} during"
            lines.append(f"{request}, {title}: {counts}{failed}.")
    return lines


def page(lab: Lab, words: str, result: LoadResult) -> str:
    """The plot as a page of its own that needs no other file."""
    return PAGE.format(
        title=html.escape(f"{lab.address} under load"),
        words="<br>".join(map(html.escape, words.splitlines())),
        table=_html(result),
        plot=_html(result.timeline() if result.spans.get(YOURS) else result.plot()),
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
