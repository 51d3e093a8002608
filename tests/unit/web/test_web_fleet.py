"""The fleet's pages: for operators, read-only, and as the ledger tells."""

from __future__ import annotations

import time
from pathlib import Path

import made_fleets
import pytest
from starlette.testclient import TestClient

from piolet.core.config import Settings, WebSettings
from piolet.core.settings import FleetSettings
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
    assert "piolet fleet approve" in page


def test_how_right_rules_were_and_who_is_a_lemon_is_shown(kept: FleetSettings, tmp_path: Path) -> None:
    operator = visitor(tmp_path, kept, "op")
    assert "No node fails much more often" in operator.get("/fleet").text
    now_ns = time.time_ns()
    with center.opened(kept.database, policy.load(kept.policy)) as opened:
        opened.gather([end for number in range(60) for end in made_fleets.ends(number, now_ns)], made_fleets.NODES)
    page = operator.get("/fleet").text
    assert "rule node-lost" in page
    assert '<a href="/fleet/nodes/node09">node09</a></th><td class="n">0.' in page


@pytest.mark.parametrize("path", ["/fleet", "/fleet/nodes/node07"])
def test_users_do_not_see_the_fleet(kept: FleetSettings, tmp_path: Path, path: str) -> None:
    ada = visitor(tmp_path, kept, "ada")
    assert "the fleet is for operators" in ada.get(path).text
    assert "/fleet" not in ada.get("/").text


def test_a_node_explains_itself(kept: FleetSettings, tmp_path: Path) -> None:
    operator = visitor(tmp_path, kept, "op")
    told = operator.get("/fleet/nodes/node07").text
    assert told.count("GPU has fallen off the bus") >= 2
    assert "suspect" in told
    assert "nothing speaks against it" in operator.get("/fleet/nodes/node20").text


def test_pages_follow_the_ledger(kept: FleetSettings, tmp_path: Path) -> None:
    operator = visitor(tmp_path, kept, "op")
    assert "<td>approval" in operator.get("/fleet").text.replace(' class="wrap"', "")
    with center.opened(kept.database, policy.load(kept.policy)) as opened:
        opened.write([Instruction(Order.APPROVE, "node07", "op", "yes")])
    assert "Nothing waits." in operator.get("/fleet").text


def test_a_site_without_a_fleet_says_so(tmp_path: Path) -> None:
    operator = visitor(tmp_path, FleetSettings(tmp_path / "none.db"), "op")
    assert "this site keeps no fleet" in operator.get("/fleet").text
