"""The gateway, as it runs, in front of real engines that work, hang, break off and die."""

import asyncio
import json
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from model_clients import Tally, keep_asking
from model_servers import KEY, engines, gateway, llama

from piolet.core.errors import ConfigError
from piolet.service.gateway import settings


@pytest.fixture(scope="module")
def engine():
    with engines(1) as found:
        yield found[0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def front(shared, engine):
    """The gateway with one replica, and no others of tests before."""
    shared.configure()
    known = shared.place.path / "endpoints"
    if [path.name for path in known.glob("*")] != ["1.json"] or models(shared) != ["climate/chat"]:
        for path in known.glob("*"):
            path.unlink()
        eventually(lambda: models(shared) == [])
    engine.announce(shared.place, 1)
    eventually(lambda: models(shared) == ["climate/chat"])
    return shared


def models(running):
    answer = httpx2.get(f"{running.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    return [each["id"] for each in answer.json()["data"]]


def eventually(holds):
    """Wait until `holds()`; the test's own time-out is the only limit."""
    while not holds():
        time.sleep(0.05)


class Rude:
    """A server that takes each request and answers with `said`, then hangs up."""

    def __init__(self, said):
        self.said = said
        self.asked = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.socket.accept()
            connection.recv(65536)
            self.asked += 1
            connection.sendall(self.said)
            connection.close()

    def announce(self, place, job):
        endpoint = {"job": job, "generation": 1, "replica": 1, "host": "127.0.0.1", "key": "", "beat": 1}
        port = self.socket.getsockname()[1]
        place.endpoint(job).write_text(json.dumps(endpoint | {"port": port, "period_s": 86400}))


def streamed(running):
    """What a stream said, and whether the connection told that it was whole."""
    body = {"model": "climate/chat", "stream": True, "max_tokens": 2, "messages": [{"role": "user", "content": "a"}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    text = b""
    with httpx2.stream("POST", f"{running.url}/v1/chat/completions", json=body, headers=headers) as response:
        try:
            for chunk in response.iter_raw():
                text += chunk
        except httpx2.RemoteProtocolError:
            return text.decode(), False
    return text.decode(), True


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def only(front, rude):
    """Let the rude server be the only replica."""
    for path in front.place.path.glob("endpoints/*"):
        path.unlink()
    rude.announce(front.place, 9)


def test_an_answer_comes_whole_and_as_a_stream(front):
    whole = front.ask(6).json()
    assert len(whole["choices"][0]["message"]["content"].split()) == 6
    stream = front.ask(6, stream=True)
    assert stream.text.endswith("data: [DONE]\n\n")
    assert "usage" not in stream.text
    asked = front.ask(6, stream=True, stream_options={"include_usage": True})
    assert '"completion_tokens": 6' in asked.text


def test_llama_cpp_answers_through_the_gateway(front):
    with llama() as engine:
        engine.announce(front.place, 1)
        whole = {}
        while whole.get("object") != "chat.completion":  # the gateway has seen it
            whole = front.ask(6).json()
        assert len(whole["choices"][0]["message"]["content"].split()) == whole["usage"]["completion_tokens"] == 6
        stream = front.ask(6, stream=True)
        assert stream.text.endswith("data: [DONE]\n\n")
        assert "usage" not in stream.text
        assert stream.text.count('"content"') >= 6


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"key": "piolet-wrong"}, 401, "give a key"),
        ({"model": "genome/other"}, 404, "there are: climate/chat"),
        ({"model": ["x"]}, 404, "no such model"),
    ],
)
def test_who_may_not_pass_is_told_why(front, asked, status, says):
    answer = front.ask(**asked)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


def test_a_body_that_is_no_object_is_refused(front):
    headers = {"Authorization": f"Bearer {KEY}"}
    for body in (b"[]", b"{", b"\xff", b"[" * 100_000):
        assert httpx2.post(f"{front.url}/v1/completions", content=body, headers=headers).status_code == 400


def test_only_paths_that_compute_are_passed_on(front):
    headers = {"Authorization": f"Bearer {KEY}"}
    assert httpx2.post(f"{front.url}/v1/files", content=b"{}", headers=headers).status_code == 404
    assert httpx2.get(f"{front.url}/metrics", headers=headers).status_code == 404


def test_a_request_goes_to_another_replica_before_its_first_byte(front):
    rudes = [Rude(said) for said in (b"", EVENTS, JSON + b"\r\n{")]
    for job, rude in enumerate(rudes, start=2):
        rude.announce(front.place, job)
    while not all(rude.asked for rude in rudes):
        assert [front.ask(stream=stream).status_code for stream in (False, True)] == [200, 200]
    only(front, Rude(BUSY))
    eventually(lambda: front.ask().status_code == 503)


def test_without_a_replica_that_answers_it_is_503(front):
    rude = Rude(JSON + b"Content-Length: 9\r\n\r\n{")
    only(front, rude)
    eventually(lambda: rude.asked or front.ask().status_code == 503)
    answer = front.ask()
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_a_stream_that_breaks_off_is_never_whole(front):
    """Neither for a client that reads the events nor for one that looks at the connection."""
    event = b'data: {"choices": []}\n\n'
    chunk = b"%x\r\n%s\r\n" % (len(event), event)
    for said in (EVENTS + chunk, EVENTS + chunk + b"0\r\n\r\n"):  # hangs up; ends properly, but without [DONE]
        rude = Rude(said)
        only(front, rude)
        text, whole = "", True
        while not rude.asked:
            text, whole = streamed(front)
        assert not whole
        assert text.count("data: ") == 2
        assert '"code": "cut"' in text


def test_a_hung_attendant_takes_its_replica_off_the_list(front, engine):
    engine.announce(front.place, 1, period_s=0)
    eventually(lambda: models(front) == [])
    engine.announce(front.place, 1)
    eventually(lambda: models(front) == ["climate/chat"])


def test_requests_go_to_nodes_only(front):
    front.place.endpoint(1).unlink()
    path = front.place.endpoint(3)
    endpoint = {"job": 3, "generation": 1, "replica": 0, "host": "169.254.169.254", "port": 80, "key": "", "beat": 1}
    path.write_text(json.dumps(endpoint | {"period_s": 86400}))
    eventually(lambda: "host=169.254.169.254" in front.log.read_text())
    assert models(front) == []


def test_a_limit_and_a_budget_hold_and_are_kept(front):
    used = "[keys.small]\nproject = 'climate'\nsha256 = '{}'\n{}"
    small = settings.new_key()
    front.configure(used.format(settings.digest(small), "tokens_per_month = 5"))
    eventually(lambda: front.ask(4, key=small).status_code == 200)
    spent = front.ask(4, key=small)
    assert (spent.status_code, spent.json()["error"]["type"]) == (429, "insufficient_quota")
    front.end()
    with sqlite3.connect(front.directory / "gateway-usage.db") as database:
        rows = database.execute("select prompt_tokens, completion_tokens from usage where key = 'small'").fetchall()
    assert rows == [(2, 4)]
    front.start()
    eventually(lambda: models(front))
    assert front.ask(4, key=small).status_code == 429
    front.configure(used.format(settings.digest(small), "requests_per_minute = 1"))
    eventually(lambda: front.ask(key=small).json().get("error", {}).get("type") == "rate_limit_exceeded")


def test_a_wrong_file_changes_nothing_while_it_runs(front):
    front.configure("nonsense = 1")
    eventually(lambda: "unknown key" in front.log.read_text())
    assert front.ask().status_code == 200


def test_nothing_that_was_said_is_logged(front):
    front.ask(stream=True, messages=[{"role": "user", "content": "my-dark-secret"}])
    front.ask(model="climate/chat", messages="my-dark-secret")
    assert "my-dark-secret" not in front.log.read_text()
    assert "ended=200" in front.log.read_text()


def test_an_open_address_needs_tls_and_a_service_one_place(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text('listen = "0.0.0.0:8419"\n')
    with pytest.raises(ConfigError, match="without TLS"):
        settings.read(path)
    path.write_text('[services."a/b"]\ndirectory = "x"\n')
    with pytest.raises(ConfigError, match="nodes are missing"):
        settings.read(path)
    path.write_text('[services."a/b"]\n')
    with pytest.raises(ConfigError, match="a directory"):
        settings.read(path)


def connections(port):
    """How many connections there are to a port of this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_engines_that_die_under_load_cut_no_answer_silently(front, engine):
    """The small form of bench/gateway.py: 30 streams from two engines, of which one after the other is killed."""
    tally = Tally()
    with engines(2, pause_ms=40) as fleet:
        for job, each in enumerate(fleet, start=2):
            each.announce(front.place, job)
        front.place.endpoint(1).unlink()

        def more_whole():
            whole = tally.ended["whole"]
            eventually(lambda: tally.ended["whole"] > whole + 30)

        over = threading.Event()
        streams = keep_asking(front.url, KEY, 30, over.is_set, tally, words=10)
        asking = threading.Thread(target=lambda: asyncio.run(streams), daemon=True)
        asking.start()
        for job, victim in enumerate(fleet, start=2):
            eventually(lambda victim=victim: connections(victim.port) >= 5)
            more_whole()
            eventually(
                lambda: len(tally.first_byte_s) - tally.ended.total() >= 20
            )  # so some of the victim's have begun
            broken = tally.ended["broken"]
            victim.process.kill()
            eventually(lambda broken=broken: tally.ended["broken"] > broken)
            front.place.endpoint(job).unlink()
            engine.announce(front.place, 1)
        more_whole()
        over.set()
        asking.join()
    assert set(tally.ended) == {"whole", "broken"}
    assert tally.ended["broken"] <= 60


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A directory with two certificates for 127.0.0.1 and their keys, and one file that is neither."""
    place = tmp_path_factory.mktemp("tls")
    for name in ("mine", "other"):
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=gateway"
        argv = ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
        argv += ["-keyout", place / f"{name}.key", "-out", place / f"{name}.pem"]
        subprocess.run(argv, check=True, capture_output=True)
    (place / "text.pem").write_text("no certificate\n")
    return place


def tls(certificates, certificate="mine.pem", key="mine.key"):
    return f'certificate = "{certificates}/{certificate}"\nkey = "{certificates}/{key}"'


def test_over_tls_a_client_verifies_the_gateway_and_streams_come_whole(certificates, engine, tmp_path):
    trusted = ssl.create_default_context(cafile=str(certificates / "mine.pem"))
    with gateway(tmp_path, tls(certificates)) as running:
        engine.announce(running.place, 1)
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx2.Client(verify=trusted, headers=headers, trust_env=False) as client:
            eventually(lambda: client.get(f"{running.url}/v1/models").json()["data"])
            body = {"model": "climate/chat", "stream": True, "max_tokens": 3, "messages": [{"content": "a"}]}
            answer = client.post(f"{running.url}/v1/chat/completions", json=body)
            assert answer.text.endswith("data: [DONE]\n\n")
        stranger = ssl.create_default_context(cafile=str(certificates / "other.pem"))
        with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
            httpx2.get(f"{running.url}/health", verify=stranger, trust_env=False)
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{running.url}/health".replace("https", "http"), trust_env=False)
        assert f"address=https://127.0.0.1:{running.port}/v1" in running.log.read_text()


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("mine.pem", "other.key", "the key is not that of the certificate"),
        ("text.pem", "mine.key", "not a certificate"),
        ("gone.pem", "mine.key", "cannot read the certificate or its key: No such file"),
    ],
)
def test_a_wrong_certificate_is_one_error_before_anything_listens(certificates, tmp_path, certificate, key, says):
    path = tmp_path / "gateway.toml"
    path.write_text(f'listen = "127.0.0.1:0"\n{tls(certificates, certificate, key)}\n')
    argv = [sys.executable, "-m", "piolet", "service", "gateway", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
