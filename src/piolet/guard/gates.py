"""Gates: a scan that must pass before something goes on. Exit statuses are for people, a gate raises."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from piolet.core.errors import Refused
from piolet.core.text import plural
from piolet.guard.finding import Level, Scan, joined
from piolet.guard.policy import Judged, Policy, Verdict, judge
from piolet.guard.rules import RULES
from piolet.guard.texts import scan_environments, scan_scripts, secrets_in

_MOST_SHOWN = 5


def gate(scan: Scan, policy: Policy, today: dt.date | None = None) -> Verdict:
    """Return the verdict on `scan` if nothing fails and everything could be checked.

    Raises:
        Refused: it names what stands in the way, and what to do about the first of it.
    """
    verdict = judge(scan, policy, today or dt.datetime.now(tz=dt.UTC).date())
    stops = [each for each in verdict.judged if each.level in {Level.FAIL, Level.UNKNOWN}]
    if stops:
        first = stops[0].risk
        more = f" and {plural(len(stops) - _MOST_SHOWN, 'more')}" if len(stops) > _MOST_SHOWN else ""
        what = "; ".join(map(shown, stops[:_MOST_SHOWN]))
        raise Refused(f"{what}{more}", where=str(first.place), remedy=RULES[first.rule].remedy)
    return verdict


def scan_run(command: str, scripts: Sequence[Path], environments: Sequence[Path]) -> Scan:
    """Scan what a run is made of: the text of its command, its scripts and its environment files."""
    said = Scan("run", 0, len(command), tuple(secrets_in(command, "command line")))
    return joined("run", [said, scan_scripts(scripts), scan_environments(environments)])


def shown(each: Judged) -> str:
    """Return a risk as one line."""
    return f"{each.rule} at {each.risk.place}: {each.risk.reason}"
