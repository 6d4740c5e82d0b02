"""The verdict on one lab, and where all of them stand."""

import typer

from shopfloor import verdicts
from shopfloor.checks.engine import Engine
from shopfloor.console import complain, err, out
from shopfloor.databases import ensure_template
from shopfloor.desk import Desk, Judgement
from shopfloor.errors import UserError
from shopfloor.progress import State
from shopfloor.services import running_services
from shopfloor.words import tell

PASSED, NOT_YET, NOT_CHECKED = 0, 1, 2
"""Exit codes of `shopfloor check`."""


def check(address: str, *, as_json: bool, trace: bool) -> None:
    """Check one lab, on the services that run or on its own, and exit with what came of it."""
    try:
        judgement = _judge(address)
    except UserError as error:
        complain(str(error))
        raise typer.Exit(NOT_CHECKED) from None
    verdict = judgement.verdict
    if as_json:
        out.print(verdicts.as_json(verdict), markup=False)
    else:
        out.print(verdicts.render(verdict, trace=trace), markup=False)
        if judgement.was is not State.OPEN and not verdict.passed:
            tell(f"\n{judgement.lab.address} passed before, and does not any more.")
    raise typer.Exit(PASSED if verdict.passed else NOT_YET)


def _judge(address: str) -> Judgement:
    desk = Desk()
    lab = desk.lab(address)
    if not desk.workspace.shop.exists():
        raise UserError("There is no copy of the shop of yours yet. Make one: shopfloor start")
    desk.work_on(lab)
    with err.status("Starting ...") as status:

        def say(text: str) -> None:
            status.update(text)

        with running_services(progress=say) as services, Engine(services) as engine:
            ensure_template(services, lab.data, progress=say)
            desk.find_out_again(engine, say)
            status.update(f"Checking {lab.address} ...")
            return desk.judge(engine, lab)
