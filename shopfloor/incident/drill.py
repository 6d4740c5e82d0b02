"""The drill at the terminal: look, look again, name the cause."""

import random
import shlex
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from shopfloor.console import out, step
from shopfloor.errors import UserError
from shopfloor.incident.evidence import Evidence, Interval
from shopfloor.incident.faults import FAULTS, Fault
from shopfloor.incident.scene import Scene, let_pass, playing
from shopfloor.waterfall import waterfall
from shopfloor.words import WIDTH, shown, tell

HEALTHY_SECONDS = 8
SICK_SECONDS = 10
MOST_SHOWN = 8

HELP = """\
metrics        routes, pool and breakers: before, and of late
logs [word]    the latest events of the log, with that word in them
traces [word]  the slowest requests of late, with that word in their route;
               of one route alone, when it is written out: traces GET /v1/orders
trace NUMBER   one of them, drawn
causes         what it may be
answer NUMBER  which of these it is
quit           end the drill"""


def fault_of(number: int) -> Fault:
    """The fault of a drill; its number says nothing of it.

    Raises:
        UserError: there is no such drill.
    """
    order = list(FAULTS)
    random.Random("incident").shuffle(order)  # noqa: S311 - the same for everyone, so that a class can talk about it
    if not 1 <= number <= len(order):
        raise UserError(f"There are incidents 1 to {len(order)}, and no {number}.")
    return order[number - 1]


def run(number: int | None) -> None:
    """Play a drill until its cause is named, or its player leaves.

    Args:
        number: which; any, when None.

    Raises:
        UserError: there is no such drill, or it does not start.
    """
    number = number or random.randint(1, len(FAULTS))  # noqa: S311 - any will do
    fault = fault_of(number)
    with ExitStack() as running:
        with step(f"Incident {number}") as say:  # over before the player types: it draws on their line
            scene = running.enter_context(playing(fault.files, fault.settings, fault.exporters, say))
            healthy = _begin(scene, fault, say)
            say("the shop is sick")
        tell(_introduction(scene))
        _Desk(scene, fault, healthy).sit()


def _begin(scene: Scene, fault: Fault, say: Callable[[str], None]) -> Interval:
    """See how it is when it is well, as far as it ever was; then break it."""
    say(f"watching it for {HEALTHY_SECONDS + SICK_SECONDS} s")
    let_pass(2)
    first = scene.read()
    let_pass(HEALTHY_SECONDS)
    healthy = Interval.between(first, scene.read())
    fault.begin(scene)
    let_pass(1)
    scene.begin()
    let_pass(SICK_SECONDS)
    return healthy


def _introduction(scene: Scene) -> str:
    return f"""
Something is wrong with the shop. Its users are still there. Look at what it says of itself, and name the cause: only
the cause counts, take your time. With tools of your own you may look, too:

    metrics  {scene.server.url}/metrics
    log      {shown(scene.server.log)}

{HELP}"""


@dataclass
class _Desk:
    """Where the player sits.

    Attributes:
        attempts: how many causes were named.
    """

    scene: Scene
    fault: Fault
    healthy: Interval
    attempts: int = 0

    def sit(self) -> None:
        """Take commands until the cause is named, or there are no more."""
        commands: dict[str, Callable[[str], bool]] = {
            "metrics": self._metrics,
            "logs": self._logs,
            "traces": self._traces,
            "trace": self._trace,
            "causes": self._causes,
            "answer": self._answer,
            "help": self._help,
        }
        self._listed: list[str] = []
        done = False
        while not done:
            try:
                line = input("\nincident> ")
            except EOFError:
                line = "quit"
            name, *rest = shlex.split(line, posix=False) or ["help"]
            if name == "quit":
                tell(f"The cause was: {self.fault.cause}\n{self.fault.fastest}")
                return
            done = commands.get(name, self._help)(" ".join(rest))

    def _evidence(self) -> Evidence:
        return self.scene.evidence(healthy=self.healthy)

    def _metrics(self, _: str) -> bool:
        out.print(metrics_table(self._evidence()), markup=False)
        return False

    def _logs(self, word: str) -> bool:
        events = self._evidence().lines(lambda event: word.lower() in str(event).lower())
        levels = Counter(str(event.get("level", "")).lower() for event in events)
        for event in events[-MOST_SHOWN:]:
            tell(" ".join(f"{name}={value}" for name, value in event.items()))
        tell(f"{len(events):,} events: " + ", ".join(f"{count:,} {level}" for level, count in levels.most_common()))
        return False

    def _traces(self, word: str) -> bool:
        traces = sorted(self._evidence().traces, key=lambda trace: -trace.duration)
        of_route = [trace for trace in traces if trace.root.name.lower() == word.lower()]
        wanted = (of_route or [trace for trace in traces if word.lower() in trace.root.name.lower()])[:MOST_SHOWN]
        self._listed = [trace.root.trace_id for trace in wanted]
        for number, trace in enumerate(wanted, 1):
            path = trace.root.attributes.get("url.path", "")
            tell(f"{number}  {1000 * trace.duration:6,.0f} ms  {len(trace.spans):4} spans  {trace.root.name}  {path}")
        if not wanted:
            tell("No request of late has that word in its route.")
        return False

    def _trace(self, number: str) -> bool:
        if not number.isdecimal() or not 1 <= int(number) <= len(self._listed):
            tell("List some with `traces` first, and give one's number: trace 1")
            return False
        wanted = self._listed[int(number) - 1]
        found = [trace for trace in self._evidence().traces if trace.root.trace_id == wanted]
        out.print(waterfall(found[0]).text if found else "That one has been forgotten.", markup=False)
        return False

    def _causes(self, _: str) -> bool:
        for number, fault in enumerate(FAULTS, 1):
            tell(f"{number}  {fault.cause}")
        return False

    def _answer(self, number: str) -> bool:
        if not number.isdecimal() or not 1 <= int(number) <= len(FAULTS):
            tell("Say the number of a cause: answer 3. To see them: causes")
            return False
        self.attempts += 1
        if FAULTS[int(number) - 1] is not self.fault:
            tell("No. What would you have to see if it were that, and do you see it?")
            return False
        tell(f"Yes{'' if self.attempts == 1 else f', at the {_ordinal(self.attempts)} attempt'}. {self.fault.cause}")
        tell(f"What shows it fastest. {self.fault.fastest}")
        return True

    def _help(self, _: str) -> bool:
        tell(HELP)
        return False


def metrics_table(evidence: Evidence) -> str:
    """The routes before and of late, the pool and the breakers, in 80 columns."""
    lines = [f"{'':43}{'a second':>9}{'errors':>7}{'p50 ms':>9}{'p95 ms':>9}"]
    for route in evidence.now.routes():
        lines.append(route.name if len(route.name) <= WIDTH else f"{route.name[: WIDTH - 3]}...")
        method, _, rule = route.name.partition(" ")
        then = next((one for one in evidence.before.routes() if one.name == f"{method} {rule}"), None)
        for title, figures in (("before", then), ("of late", route)):
            if figures:
                times = f"{1000 * figures.p50:9,.0f}{1000 * figures.p95:9,.0f}"
                lines.append(f"    {title:39}{figures.rate:9.1f}{figures.errors:7,}{times}")
    in_use, size = (evidence.now.gauge(f"db_pool_{name}") for name in ("connections_in_use", "size"))
    lines.append(f"connections to the database in use: {in_use:.0f} of {size:.0f}")
    for dependency in ("payments", "delivery"):
        state = evidence.now.gauge("circuit_breaker_state", dependency=dependency)
        lines.append(f"circuit breaker of {dependency}: {('closed', 'half-open', 'open')[int(state)]}")
    return "\n".join(lines)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
