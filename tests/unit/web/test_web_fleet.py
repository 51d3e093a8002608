"""The fleet's pages: for operators, as the ledger tells; orders go the way of `piolet fleet`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import fleet_service
import made_fleets
import pytest
from starlette.testclient import TestClient

from piolet.core.settings import FleetSettings, Settings, WebSettings
from piolet.fleet import center, policy
from piolet.fleet.ledger import Instruction, Order
from piolet.web.app import build
from piolet.web.login import PROXY_SECRET, PROXY_USER


def visitor(directory: Path, fleet: FleetSettings, user: str) -> TestClient:
    secret = directory / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    web = WebSettings(login="proxy", secret=secret, operators=("op",))
    app = build(Settings(web=web, fleet=fleet), root=directory)
    return TestClient(app, base_url="http://127.0.0.1", headers={PROXY_SECRET: "s", PROXY_USER: user})


@pytest.fixture
def kept(tmp_path: Path) -> FleetSettings:
    path, site = made_fleets.suspect(tmp_path)
    return FleetSettings(path, site)


def test_racks_and_what_waits_are_shown_to_operators(kept: FleetSettings, tmp_path: Path) -> None:
    page = visitor(tmp_path, kept, "op").get("/fleet").text
    assert page.count('aria-label="node') == made_fleets.NODES
    assert 'aria-label="node07: suspect"' in page
    assert '<button name="order" value="approve" class="first">' in page


def test_incidents_how_right_rules_were_and_who_is_a_lemon_are_shown(kept: FleetSettings, tmp_path: Path) -> None:
    now_ns = time.time_ns()
    with center.opened(kept.database, policy.load(kept.policy)) as opened:
        opened.gather([end for number in range(60) for end in made_fleets.ends(number, now_ns)], made_fleets.NODES)
    operator = visitor(tmp_path, kept, "op")
    rules = operator.get("/fleet/rules").text
    assert "rule node-lost" in rules
    assert '<a href="/fleet/nodes/node09">node09</a></th><td class="n">0.' in rules
    assert '<th scope="row">node:NODE_FAIL</th>' in operator.get("/fleet/incidents").text
    assert "job:NODE_FAIL fail on node09 in job j8" in operator.get("/fleet/nodes/node09").text


PATHS = ("/fleet", "/fleet/incidents", "/fleet/rules", "/fleet/nodes/node07")


@pytest.mark.parametrize("path", PATHS)
def test_users_do_not_see_the_fleet(kept: FleetSettings, tmp_path: Path, path: str) -> None:
    ada = visitor(tmp_path, kept, "ada")
    told = ada.get(path)
    assert (told.status_code, "the fleet is for operators" in told.text) == (403, True)
    assert "/fleet" not in ada.get("/").text


def test_a_node_explains_itself(kept: FleetSettings, tmp_path: Path) -> None:
    operator = visitor(tmp_path, kept, "op")
    told = operator.get("/fleet/nodes/node07").text
    assert told.count("GPU has fallen off the bus") >= 2
    assert "suspect" in told
    assert 'value="approve"' in told
    other = operator.get("/fleet/nodes/node20").text
    assert "nothing speaks against it" in other
    assert 'value="approve"' not in other


def test_pages_follow_a_ledger_that_grows_and_one_that_replaces_it(kept: FleetSettings, tmp_path: Path) -> None:
    operator = visitor(tmp_path, kept, "op")
    assert "Nothing waits." not in operator.get("/fleet").text
    with center.opened(kept.database, policy.load(kept.policy)) as opened:
        opened.write([Instruction(Order.APPROVE, "node07", "op", "yes")])
    assert "Nothing waits." in operator.get("/fleet").text
    for file in tmp_path.glob("fleet.db*"):
        file.unlink()
    made_fleets.suspect(tmp_path)
    assert "Nothing waits." not in operator.get("/fleet").text


def test_a_site_without_a_fleet_says_so(tmp_path: Path) -> None:
    operator = visitor(tmp_path, FleetSettings(tmp_path / "none.db"), "op")
    assert "this site keeps no fleet" in operator.get("/fleet").text


APPROVAL = {"order": "approve", "target": "node07", "reason": "seen twice", "hours": ""}


def ordered(kept: FleetSettings) -> list[tuple[str, str, str, bool]]:
    contents = [entry.content for entry in center.entries(kept.database)]
    orders = [one for one in contents if isinstance(one, Instruction)]
    return [(one.order.value, one.user, one.reason, one.until_ns is not None) for one in orders]


def test_an_operator_approves_and_holds_in_the_browser(kept: FleetSettings, tmp_path: Path) -> None:
    operator = visitor(tmp_path, kept, "op")
    answer = operator.post("/fleet/orders", data=APPROVAL)
    assert str(answer.url).endswith("/fleet/nodes/node07")
    assert "op ordered approve of node07: seen twice" in answer.text
    operator.post("/fleet/orders", data=APPROVAL | {"order": "hold", "hours": "2"})
    assert ordered(kept) == [("approve", "op", "seen twice", False), ("hold", "op", "seen twice", True)]


def test_the_service_is_told_who_ordered_if_there_is_one(kept: FleetSettings, tmp_path: Path) -> None:
    with fleet_service.listening(kept.database) as (address, tokens):
        token = tmp_path / "token"
        token.write_text(tokens["operator"])
        operator = visitor(tmp_path, replace(kept, service=address, token=token), "op")
        hold = APPROVAL | {"order": "hold", "hours": "2"}
        operator.post("/fleet/orders", data=hold).raise_for_status()
        again = operator.post("/fleet/orders", data=APPROVAL | {"target": "node09"})
        assert (again.status_code, "nothing is known of node09" in again.text) == (404, True)
    assert ordered(kept) == [("hold", "op by operator", "seen twice", True)]


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (("ada", {}, {}), (403, "the fleet is for operators")),
        (("op", {"sec-fetch-site": "cross-site"}, {}), (403, "sent from another site")),
        (("op", {"origin": "http://elsewhere"}, {}), (403, "sent from another site")),
        (("op", {}, {"order": "destroy"}), (404, "this is no order")),
        (("op", {}, {"order": "hold", "hours": "many"}), (404, "this is no order")),
        (("op", {}, {"order": "hold", "hours": "nan"}), (404, "this is no order")),
        (("op", {}, {"order": "hold", "hours": "-1"}), (404, "this is no order")),
        (("op", {}, {"target": "node20"}), (404, "nothing is known of node20")),
        (("op", {}, {"order": "return"}), (403, "is not held out by the fleet")),
    ],
)
def test_an_order_that_must_not_be_given_changes_nothing(kept, tmp_path, sent, answered) -> None:
    (who, headers, form), (status, said) = sent, answered
    answer = visitor(tmp_path, kept, who).post("/fleet/orders", data=APPROVAL | form, headers=headers)
    assert (answer.status_code, said in answer.text) == (status, True)
    assert ordered(kept) == []
    assert visitor(tmp_path, kept, "op").get("/fleet/orders").status_code == 405
