"""The service on a real cluster: reports with munge over TLS and drains in Slurm."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from fleet_kills import steps

from piolet.fleet import center
from piolet.fleet.evidence import Evidence, Kind, Source, made_id
from piolet.fleet.ledger import Verb

pytestmark = pytest.mark.cluster


def certificate(directory: Path) -> dict[str, str]:
    key, chain = directory / "key.pem", directory / "chain.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", chain)
    subprocess.run([*made, *subject], check=True, capture_output=True)
    return {
        "PIOLET_FLEET_CERTIFICATE": str(chain),
        "PIOLET_FLEET_KEY": str(key),
        "PIOLET_FLEET_AUTHORITY": str(chain),
    }


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def xid(ident: str, job: str) -> dict[str, object]:
    now_ns = time.time_ns()
    return {"id": ident, "time_ns": now_ns, "kind": "xid", "code": "79", "node": "node2", "gpu": "GPU-2", "job": job}


@pytest.fixture
def secure(small_lab, settings, applying, tmp_path) -> dict[str, str]:
    """The environment of a node that reports over TLS; the service's has the same."""
    port = free_port()
    chosen = certificate(tmp_path) | {
        "PIOLET_FLEET_MUNGE_SOCKET": str(small_lab.munge_socket),
        "PIOLET_FLEET_JWT_KEY": str(small_lab.directory / "jwt.key"),
        "PIOLET_FLEET_SPOOL": str(tmp_path / "spool"),
        "PORT": port,
    }
    applying.environment.update(chosen)
    return settings | chosen | {"PIOLET_FLEET_SERVICE": f"https://127.0.0.1:{port}"}


def test_what_a_node_reports_with_munge_over_tls_waits_while_nobody_listens_and_then_drains_it(
    small_lab, secure, applying, tmp_path, commands_on
) -> None:
    run, path = commands_on(small_lab), Path(secure["PIOLET_FLEET_DATABASE"])

    def report(number: int) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "report.json"
        file.write_text(json.dumps({"evidence": [xid(f"x{number}", str(number))]}))
        return run("piolet", "fleet", "report", file, env=secure, check=False)

    waits = report(1)
    assert (waits.returncode, "1 report waiting" in waits.stdout) == (1, True)
    assert "does not answer" in waits.stderr
    with applying.started("nowhere", "serve", "--port", secure["PORT"]):
        while report(2).returncode:
            time.sleep(0.1)  # it begins, and Slurm has not told yet which nodes there are
        while steps(path, Verb.DRAIN) != ["begun", "done"]:
            time.sleep(0.1)
        run("piolet", "lab", "gpu", "--name", small_lab.name, "node4:0", "--xid", "79")
        for said in ("1 new to the fleet", "0 new to the fleet"):
            assert said in run("srun", "--nodelist=node4", "piolet", "fleet", "report", "--gpus", env=secure).stdout
        run("piolet", "lab", "gpu", "--name", small_lab.name, "node4:0", "--clear")
    assert [*(tmp_path / "spool").glob("*.json")] == []
    found = [entry.content for entry in center.entries(path) if isinstance(entry.content, Evidence)]
    assert {one.id for one in found} >= {made_id("node2", one) for one in ("x1", "x2")}
    (seen,) = [one for one in found if one.node == "node4" and one.kind is Kind.XID]
    assert (seen.code, seen.source, bool(seen.job)) == ("79", Source.NODE, True)


def test_credentials_of_users_of_other_requests_and_from_before_open_nothing(
    small_lab, secure, applying, commands_on, user
) -> None:
    run = commands_on(small_lab)
    trusted = ssl.create_default_context(cafile=secure["PIOLET_FLEET_AUTHORITY"])

    def credential(body: bytes, user: str | None = None) -> str:
        digest = hashlib.sha256(body).hexdigest()
        return run("munge", f"--socket={small_lab.munge_socket}", f"--string={digest}", user=user).stdout.strip()

    def token(user: str) -> str:
        """Slurm's own JSON Web Token."""
        return run("scontrol", "token", f"username={user}", "lifespan=600").stdout.strip().removeprefix("SLURM_JWT=")

    def post(body: bytes, shown: str, scheme: str = "Munge") -> tuple[int, str]:
        url, headers = f"{secure['PIOLET_FLEET_SERVICE']}/v1/evidence", {"Authorization": f"{scheme} {shown}"}
        answer = httpx2.post(url, content=body, headers=headers, verify=trusted)
        return answer.status_code, answer.json().get("error", "")

    body = json.dumps({"evidence": [xid("y", "1") | {"kind": "alert", "code": "z"}]}).encode()
    with applying.started("nowhere", "serve", "--port", secure["PORT"]) as process:
        good = ""
        while not good:
            assert process.poll() is None
            with suppress(httpx2.HTTPError):
                shown = credential(body)
                good = shown if post(body, shown)[0] == 200 else ""
        assert post(body, good) == (403, "the munge credential is not good: Replayed credential")
        assert post(body + b" ", credential(body)) == (403, "the munge credential is for another request")
        assert post(body, credential(body, user)) == (403, f"{user} does not speak for nodes")
        assert post(body, "MUNGE:abc:")[0] == 403
        assert post(body, token("root"), "Bearer") == (200, "")
        assert post(body, token(user), "Bearer") == (403, f"{user} does not speak for nodes")
        assert post(body, token("root")[:-4] + "AAAA", "Bearer")[0] == 403
        with pytest.raises(httpx2.HTTPError, match="certificate"):
            httpx2.get(f"{secure['PIOLET_FLEET_SERVICE']}/health")
