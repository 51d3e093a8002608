"""The service: who may say what, that nothing is believed which is not well formed, that nothing is lost or doubled."""

from __future__ import annotations

import json
import threading
import time
import uuid
from pathlib import Path

import fleet_service
import pytest
from fleet_service import until, xid
from joserfc import jwt
from joserfc.jwk import OctKey

from piolet.core.errors import PioletError, Refused, UsageError
from piolet.core.settings import FleetSettings
from piolet.core.sockets import secured
from piolet.fleet import center, identity, spool, store
from piolet.fleet.evidence import Evidence
from piolet.fleet.identity import Scope


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A service that tests only ask; each uses nodes and ids of its own."""
    directory = tmp_path_factory.mktemp("service")
    (directory / "jwt.key").write_bytes(b"k" * 32)
    settings = FleetSettings(jwt_key=directory / "jwt.key", requests_per_minute=100_000)
    with fleet_service.running(directory / "fleet.db", settings) as running:
        yield running


def entries(running) -> int:
    return running.client.get("/health").json()["entries"]


def test_a_report_is_answered_when_it_is_kept_and_counts_once(shared) -> None:
    first, second = (xid(ident, "n10", code="119", job="1") for ident in "ab")
    assert shared.report("reporter", first, second).json() == {"new": 2, "known": 0}
    assert shared.report("reporter", first, second).json() == {"new": 0, "known": 2}
    told = shared.ask("reader", "GET", "/v1/nodes/n10").json()
    assert (told["state"], len(told["evidence"])) == ("suspect", 2)


@pytest.mark.parametrize(
    ("node", "rule", "errors"),
    [("n11", "xid-fatal-again", [("119", "1"), ("119", "2")]), ("n13", "gpu-lost", [("79", "1")])],
    ids=["the second in another job", "at once"],
)
def test_what_a_rule_asks_for_is_done_in_slurm_and_undone_when_it_is_returned(shared, node, rule, errors) -> None:
    shared.report("reporter", *(xid(job, node, code=code, job=job) for code, job in errors))
    until(lambda: node in shared.slurm.reasons)
    assert shared.slurm.reasons[node].startswith(f"piolet: {rule}: ")
    until(lambda: shared.ask("reader", "GET", f"/v1/nodes/{node}").json()["state"] == "drained")
    assert shared.ask("operator", "POST", "/v1/orders", json={"order": "return", "target": node}).status_code == 200
    until(lambda: node not in shared.slurm.reasons)


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        ("", "POST", "/v1/evidence", 401),
        ("", "GET", "/v1/status", 401),
        ("reader", "POST", "/v1/evidence", 403),
        ("reader", "POST", "/v1/orders", 403),
        ("operator", "POST", "/v1/alerts", 403),
        ("reporter", "GET", "/v1/status", 403),
        ("reporter", "POST", "/v1/orders", 403),
        ("reader", "GET", "/v1/status", 200),
        ("reader", "GET", "/v2", 404),
        ("", "GET", "/health", 200),
    ],
)
def test_each_token_opens_what_it_is_for(shared, who, method, path, status) -> None:
    assert shared.ask(who, method, path, content=b"{}" if method == "POST" else None).status_code == status


GOOD = xid("x", "n20")
WRONG = {
    "no JSON": b"{",
    "not UTF-8": b'{"evidence": "\xff"}',
    "nothing": b"",
    "an array": b"[]",
    "no evidence": b'{"evidence": []}',
    "deep": b'{"evidence": ' + b"[" * 100_000,
    "an unknown key": json.dumps({"evidence": [GOOD], "more": 1}).encode(),
    "its source": json.dumps({"evidence": [GOOD | {"source": "slurm"}]}).encode(),
    "a number for a string": json.dumps({"evidence": [GOOD | {"node": 5}]}).encode(),
    "a string for a number": json.dumps({"evidence": [GOOD | {"time_ns": "5"}]}).encode(),
    "not a number": json.dumps({"evidence": [GOOD | {"value": float("nan")}]}).encode(),
    "a long name": json.dumps({"evidence": [GOOD | {"code": "x" * 5000}]}).encode(),
    "a newline": json.dumps({"evidence": [GOOD | {"gpu": "a\nb"}]}).encode(),
    "another kind": json.dumps({"evidence": [GOOD | {"kind": "mood"}]}).encode(),
    "an old time": json.dumps({"evidence": [GOOD | {"time_ns": 1}]}).encode(),
    "a time to come": json.dumps({"evidence": [GOOD | {"time_ns": time.time_ns() + 10**13}]}).encode(),
    "another cluster's node": json.dumps({"evidence": [GOOD | {"node": "m1"}]}).encode(),
    "one wrong of two": json.dumps({"evidence": [GOOD, GOOD | {"node": "m1"}]}).encode(),
    "a job's end": json.dumps({"evidence": [GOOD | {"kind": "job", "code": "COMPLETED"}]}).encode(),
    "that it is healed": json.dumps({"evidence": [GOOD | {"kind": "check", "code": "revalidation"}]}).encode(),
    "too many": json.dumps({"evidence": [GOOD] * 5001}).encode(),
    "too long": b" " * (5 << 20),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_what_is_not_well_formed_is_refused_whole_and_says_why(shared, body) -> None:
    before = entries(shared)
    answer = shared.ask("reporter", "POST", "/v1/evidence", content=body)
    assert answer.status_code in {403, 413, 422}
    assert answer.json()["error"]
    assert entries(shared) == before
    assert shared.ask("reader", "GET", "/v1/nodes/n20").json()["state"] == "in"


def test_a_node_speaks_for_itself_alone_and_cannot_take_another_ones_id(shared) -> None:
    assert shared.report("n1", xid("mine", "n2")).status_code == 403
    assert shared.report("n1", xid("same", "n1")).json()["new"] == 1
    assert shared.report("reporter", xid("same", "n3")).json()["new"] == 1


def signed(key: bytes, **claims) -> str:
    now_s = int(time.time())
    values = {"iat": now_s, "exp": now_s + 60, "sun": "root"} | claims
    return jwt.encode({"alg": "HS256"}, {k: v for k, v in values.items() if v is not None}, OctKey.import_key(key))


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (lambda: signed(b"k" * 32), 200),
        (lambda: signed(b"x" * 32), 403),
        (lambda: signed(b"k" * 32, sun="ann"), 403),
        (lambda: signed(b"k" * 32, exp=5), 403),
        (lambda: signed(b"k" * 32, exp=None), 403),
        (lambda: signed(b"k" * 32)[:-3], 403),
        (lambda: "eyJhbGciOiJub25lIn0.eyJzdW4iOiJyb290IiwiZXhwIjo5OTk5OTk5OTk5fQ.", 403),
        (lambda: "piolet_" + "x" * 43, 403),
    ],
    ids=["Slurm's", "another key", "a user's", "expired", "for ever", "cut off", "unsigned", "a made-up token"],
)
def test_nodes_show_slurms_tokens_and_no_others(shared, token, status) -> None:
    body = json.dumps({"evidence": [xid(uuid.uuid4().hex, "n30", kind="alert", code="x")]})
    headers = {"Authorization": f"Bearer {token()}"}
    assert shared.client.post("/v1/evidence", content=body, headers=headers).status_code == status


def test_alerts_of_the_monitoring_become_evidence_once(shared) -> None:
    alert = {
        "status": "firing",
        "labels": {"alertname": "InletHot", "instance": "n31.site:9100"},
        "annotations": {"summary": "the air is hot"},
        "startsAt": "2026-01-02T03:04:05.678Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "c0ffee",
    }
    others = [alert | {"status": "resolved"}, alert | {"labels": {"alertname": "DiskFull", "instance": "login1"}}]
    body = {"version": "4", "receiver": "piolet", "status": "firing", "alerts": [alert, *others]}
    said = shared.ask("reporter", "POST", "/v1/alerts", json=body)
    assert said.json() == {"new": 1, "known": 0, "ignored": 1}
    assert shared.ask("reporter", "POST", "/v1/alerts", json=body).json()["known"] == 1
    assert shared.ask("reader", "GET", "/v1/nodes/n31").json()["state"] == "observed"
    assert shared.ask("reporter", "POST", "/v1/alerts", json={"version": "3", "alerts": []}).status_code == 422


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"order": "approve", "target": "n12"}, "nothing is known of n12"),
        ({"order": "close-breaker", "target": "check:x"}, "no breaker of check:x is open"),
        ({"order": "obey", "target": "n1"}, "order: "),
        ({"order": "hold", "target": "n1", "hours": -1}, "hours: "),
        ({"order": "hold"}, "target: "),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_and_says_why(shared, order, said) -> None:
    answer = shared.ask("operator", "POST", "/v1/orders", json=order)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_too_many_requests_are_told_to_wait(tmp_path) -> None:
    with fleet_service.running(tmp_path / "fleet.db", FleetSettings(requests_per_minute=3)) as running:
        answers = [running.ask("reader", "GET", "/v1/status").status_code for _ in range(8)]
    assert answers[-1] == 429
    assert 200 in answers


def test_a_token_is_shown_once_and_opens_nothing_when_revoked(tmp_path) -> None:
    with store.opened(tmp_path / "fleet.db") as opened:
        token = identity.new_token(opened, "a", [Scope.READ])
        assert token not in str(opened.tokens())
        assert identity.callers(opened.tokens())[identity.hashed(token)].scopes == {Scope.READ}
        with pytest.raises(UsageError, match="there is a token a already"):
            identity.new_token(opened, "a", [Scope.READ])
        identity.revoke(opened, "a")
        assert opened.tokens() == []
        with pytest.raises(UsageError, match="no token a"):
            identity.revoke(opened, "a")


def test_a_report_waits_in_the_spool_until_the_service_has_it(shared, tmp_path) -> None:
    def post(path: str, body: bytes):
        return shared.ask("reporter", "POST", path, content=body)

    def away(_: str, __: bytes):
        raise PioletError("the fleet's service does not answer")

    spool.keep(tmp_path, [xid(f"s{number}", "n32", status="pass") for number in range(1500)])
    sent = spool.deliver(tmp_path, away)
    assert (sent.waiting, "does not answer" in sent.why) == (2, True)
    spool.keep(tmp_path, [xid("bad", "m7")])
    sent = spool.deliver(tmp_path, post)
    assert (sent.new, sent.refused, sent.waiting) == (1500, 1, 0)
    assert [*tmp_path.glob("*.json")] == []
    assert "has no node m7" in next((tmp_path / "refused").glob("*.why")).read_text()


def test_an_answer_that_got_lost_counts_once(shared, tmp_path) -> None:
    def lost(path: str, body: bytes):
        shared.ask("reporter", "POST", path, content=body)
        raise PioletError("the connection broke")

    spool.keep(tmp_path, [xid("lost", "n33", job="1")])
    assert spool.deliver(tmp_path, lost).waiting == 1
    assert spool.deliver(tmp_path, lambda path, body: shared.ask("reporter", "POST", path, content=body)).new == 0
    assert len(shared.ask("reader", "GET", "/v1/nodes/n33").json()["evidence"]) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"evidence": 5}', '{"evidence": [5]}'])
def test_a_file_that_is_no_report_is_not_kept(tmp_path, text) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(PioletError, match=r"JSON|report"):
        spool.read_items(path)


def test_the_database_stops_and_starts_under_load_and_nothing_is_lost_or_doubled(server) -> None:
    url = server.new(f"fleet-{uuid.uuid4().hex}")
    sent: list[str] = []
    stop = threading.Event()
    with fleet_service.running(url, FleetSettings(requests_per_minute=10**6)) as running:

        def report_for_ever(name: str) -> None:
            number = 0
            while not stop.is_set():
                item = xid(f"{name}-{number}", "n5", kind="check", code="dns", status="pass")
                if running.report("reporter", item).status_code == 200:
                    sent.append(item["id"])
                    number += 1

        def kept() -> int:
            return len(sent)

        threads = [threading.Thread(target=report_for_ever, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for _ in range(2):
            before = kept()
            until(lambda before=before: kept() > before + 20)
            server.stop()
            assert running.client.get("/health").status_code in {200, 503}
            server.start()
            before = kept()
            until(lambda before=before: kept() > before + 20)
        stop.set()
        for thread in threads:
            thread.join()
    contents = [entry.content for entry in center.entries(url)]
    known = [one.id for one in contents if isinstance(one, Evidence)]
    assert len(known) == len(set(known))
    assert len(known) >= len(sent)
    count, _ = center.verify_ledger(url)
    assert count == center.look(url).last.seq


def test_a_second_service_waits_and_takes_over(tmp_path) -> None:
    path = tmp_path / "fleet.db"
    with fleet_service.running(path) as first:
        first.report("reporter", xid("a", "n4", code="119"))
        second = fleet_service.Service(path, fleet_service.policy.load, fleet_service.FewNodes(), "lab")
        second.start()
        with pytest.raises(PioletError, match="away"):
            second.submit([])
    until(lambda: second._center is not None)
    with second.reading() as opened:
        assert opened.fleet.node("n4").state == "suspect"
    second.stop()


def test_a_certificate_is_needed_where_others_can_listen() -> None:
    with pytest.raises(Refused, match="without TLS"):
        secured("0.0.0.0", 0, None, "fleet")  # noqa: S104 - refused
    listening, address = secured("127.0.0.1", 0, Path("certificate"), "fleet")
    listening.close()
    assert address.startswith("https://127.0.0.1:")
