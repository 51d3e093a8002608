"""kill -9 at every step of every action, on a real cluster: after a restart it is neither lost nor done twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tickets
from fleet_kills import QUICK, SITES, STAGES, Applying, Stage, steps, waits_for

from piolet.fleet import center, policy
from piolet.fleet.applying import AFTER
from piolet.fleet.ledger import Transition, Verb

pytestmark = pytest.mark.cluster


@dataclass(frozen=True, slots=True)
class Site:
    """A fleet of which one action is to be done, and where its tickets go."""

    path: Path
    applying: Applying
    tickets: tickets.Tickets

    def phases(self, stage: Stage) -> list[str]:
        return steps(self.path, stage.verb)

    def done_once(self, stage: Stage) -> None:
        assert self.phases(stage) == ["begun", "done"]
        assert self.applying.changes(stage.verb) == 1
        contents = [entry.content for entry in center.entries(self.path)]
        after = AFTER.get(stage.verb)
        moved = [one for one in contents if isinstance(one, Transition) and one.after is after]
        assert len(moved) == (after is not None)
        assert center.verify_ledger(self.path)[0] == len(contents)


@pytest.fixture
def way() -> str:
    """How tickets are opened."""
    return "web"


@pytest.fixture
def site(applying, runner, tmp_path, stage, way) -> Iterator[Site]:
    path, database = tmp_path / "policy.toml", tmp_path / "fleet.db"
    with tickets.receiving() as opened:
        ticket = json.dumps([SITES[Verb.TICKET], *opened.argv(way)])
        text = path.read_text()
        if stage.verb is Verb.REBOOT:
            text = text.replace('ladder = ["reset"]', 'ladder = ["reboot"]')
        if stage.verb is Verb.TICKET:
            text += f"cycles = 1\nticket = {ticket}\n"
        path.write_text(text)
        waits_for(stage.verb, database, policy.load(path), runner)
        yield Site(database, applying, opened)


def killed_and_started_again(site: Site, stage: Stage) -> None:
    site.applying.killed_at(stage, "serve", "--port", "0")
    assert site.phases(stage) == ["begun"] * stage.begun
    if stage.command not in SITES.values():  # those of the site go on
        assert site.applying.changes(stage.verb) == stage.changed
    with site.applying.started("nowhere", "serve", "--port", "0"):
        while site.phases(stage) != ["begun", "done"]:
            time.sleep(0.1)
    site.done_once(stage)


@pytest.mark.parametrize("stage", QUICK, ids=str)
def test_a_service_that_is_killed_neither_loses_nor_doubles_an_action(site, stage) -> None:
    killed_and_started_again(site, stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in QUICK], ids=str)
def test_nor_does_it_at_any_other_step_of_any_action(site, stage) -> None:
    killed_and_started_again(site, stage)


OF_TICKETS = [stage for stage in STAGES if stage.verb is Verb.TICKET]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["web", "mail"])
@pytest.mark.parametrize("stage", OF_TICKETS, ids=str)
def test_a_ticket_comes_once_by_web_hook_and_by_mail(site, stage, way) -> None:
    killed_and_started_again(site, stage)
    (ticket,) = site.tickets.opened(way)
    assert "ticket-node3-" in ticket
    assert "node3: drained 1 times in 7 days" in ticket


@pytest.mark.slow
@pytest.mark.parametrize("stage", [STAGES[0], *QUICK], ids=str)
def test_piolet_fleet_apply_finishes_what_another_had_begun(site, stage) -> None:
    site.applying.killed_at(stage, "apply")
    assert ("finished what had been begun" in site.applying.whole()) is stage.begun
    site.done_once(stage)
