"""The fleet's service at full size: 2 700 nodes of a real slurmctld, reports over HTTP, drains that appear in Slurm.

    python bench/fleet_service.py [--windows 7] [--seconds 4] [--clients 2] [--drains 20] [--entries 1000000]

Needs root and Slurm: it starts a lab of 8 nodes and tells its slurmctld of 2 692 more that do not answer. Reports are
batches of 1000 results of checks, 0.2 % of them failures; their rate is taken in windows of some seconds. The peer is
the same rows put into the same database in the same batches and nothing else: no HTTP, no checks, no chain, no rules.
A drain is timed from the moment before its report is sent until `scontrol show node` has the reason. Everything shares
this machine's cores: clients, service, database, slurmctld.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
from common import Result, measured, report
from sqlalchemy import create_engine, text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

import postgres

from piolet.core.nouns import Status
from piolet.core.sockets import free_port
from piolet.fleet import center, identity, policy, store
from piolet.fleet.evidence import Evidence, Kind, Source, made_id
from piolet.fleet.following import Follower
from piolet.fleet.identity import Scope
from piolet.lab import Lab, Spec, processes, up

PHANTOMS = [f"ph{number:04d}" for number in range(1, 2693)]
BATCH = 1000
FAILING, ENDS = 0.002, 0.1
POLICY = "[limits]\nwindow_nodes = 1000\nout_nodes = 1000\n[breaker]\nnodes = 1000\n"


def main() -> None:
    """Measure each database and report."""
    arguments = _arguments()
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as directory, phantom_cluster() as lab, postgres.server() as server:
        databases = {"SQLite": f"{directory}/fleet.db", "PostgreSQL": server.url()}
        for place, (name, where) in enumerate(databases.items()):
            chosen = PHANTOMS[place * arguments.drains :][: arguments.drains]
            results += measure(name, where, Path(directory), lab=lab, arguments=arguments, chosen=chosen)
    if arguments.entries:
        with tempfile.TemporaryDirectory() as directory:
            results += rebuild(Path(directory) / "fleet.db", arguments.entries)
    report(__file__, results)


@contextmanager
def phantom_cluster(phantoms: int = len(PHANTOMS)) -> Iterator[Lab]:
    """Start a lab, and its slurmctld anew with many more nodes."""
    lab = up(Spec(name=f"bench-{secrets.token_hex(3)}", nodes=8, gpus=1))
    try:
        conf = lab.slurm_conf.read_text(encoding="utf-8").replace("SlurmdTimeout=60", "SlurmdTimeout=0")
        names = f"ph[0001-{phantoms:04d}]"
        more = f"NodeName={names} NodeAddr=127.0.0.1 Port=17999 CPUs=288 RealMemory=800000 State=UNKNOWN\n"
        lab.slurm_conf.write_text(conf + more, encoding="utf-8")
        pid = int((lab.directory / "run/slurmctld.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
        environment = os.environ | lab.environment()
        marked = {processes.MARKER: str(lab.directory), processes.DAEMON_MARKER: "slurmctld"}  # so that `down` finds it
        subprocess.run(["slurmctld"], env=environment | marked, check=True)
        while subprocess.run(["sinfo", "-h"], env=environment, capture_output=True, check=False).returncode:
            time.sleep(0.2)
        yield lab
    finally:
        lab.down()


def measure(
    name: str, where: str, directory: Path, *, lab: Lab, arguments: argparse.Namespace, chosen: list[str]
) -> list[Result]:
    """Run the service on a database, load it, time drains of the `chosen` nodes under the load."""
    with store.opened(where) as opened:
        token = identity.new_token(opened, secrets.token_hex(4), [Scope.SUBMIT])
    plain = [plain_inserts(where, 30) for _ in range(arguments.windows)]
    with service(where, directory, lab) as (address, pid):
        send = Sender(address, token)
        counts, stop = [0] * arguments.clients, threading.Event()
        threads = [
            threading.Thread(target=load, args=(send, counts, place, stop)) for place in range(arguments.clients)
        ]
        began, idle_s = time.perf_counter(), cpu_s(pid)
        for thread in threads:
            thread.start()
        rates = [window(counts, arguments.seconds) for _ in range(arguments.windows)]
        sent = sum(counts)
        used_s = cpu_s(pid) - idle_s
        drains = [drained(send, lab, node) for node in chosen]
        stop.set()
        for thread in threads:
            thread.join()
        whole_s = time.perf_counter() - began
    looks = (directory / "sinfo-calls").read_text().count("\n")
    in_slurm = listed(lab)
    answers, seen = zip(*drains, strict=True)
    aim = {"SQLite": 2000, "PostgreSQL": 5000}[name]
    return [
        measured(f"{name}: evidence taken", "items/s", rates, plain, peer="plain inserts", aim=f"ours >= {aim}"),
        measured(f"{name}: taken in a second of a core", "items", [sent / used_s]),
        measured(f"{name}: a drain is decided, under that load", "s", answers, aim="ours <= 1"),
        measured(f"{name}: and in Slurm", "s", seen),
        measured(f"{name}: drains in sinfo -R", f"of {len(drains)}", [in_slurm], aim=f"ours >= {len(drains)}"),
        measured(f"{name}: sinfo asked", "times in 15 s", [15 * looks / whole_s], aim="ours <= 1"),
    ]


@contextmanager
def service(where: str, directory: Path, lab: Lab) -> Iterator[tuple[str, int]]:
    """Run `piolet fleet serve` with a sinfo that counts its calls; yield its address and its process."""
    port = free_port()
    (directory / "policy.toml").write_text(rules(), encoding="utf-8")
    calls, wrapper = directory / "sinfo-calls", directory / "bin/sinfo"
    calls.write_text("")
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(f'#!/bin/sh\necho x >> {calls}\nexec {shutil.which("sinfo")} "$@"\n')
    wrapper.chmod(0o755)
    environment = os.environ | lab.environment()
    environment["PATH"] = f"{wrapper.parent}:{environment['PATH']}"
    environment |= {
        "PIOLET_FLEET_DATABASE": where,
        "PIOLET_FLEET_POLICY": str(directory / "policy.toml"),
        "PIOLET_FLEET_REQUESTS_PER_MINUTE": "1000000",
    }
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(["piolet", "fleet", "serve", "--port", str(port)], env=environment, stderr=log)
    try:
        ready(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def window(counts: list[int], seconds: float) -> float:
    """Return how many items a second were answered in the next `seconds`."""
    before, began = sum(counts), time.perf_counter()
    time.sleep(seconds)
    return (sum(counts) - before) / (time.perf_counter() - began)


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, without its children's."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rules() -> str:
    """Return the shipped rules under limits that let every drain of the benchmark through."""
    shipped = policy.SHIPPED.read_text(encoding="utf-8")
    return POLICY + shipped[shipped.index("[course]") :]


def ready(address: str) -> None:
    """Wait until the service decides and knows the nodes."""
    while True:
        try:
            if httpx2.get(f"{address}/health").status_code == 200:  # noqa: PLR2004 - HTTP's number for yes
                time.sleep(2)  # the first look at Slurm
                return
        except httpx2.HTTPError:
            time.sleep(0.1)


class Sender:
    """Sends reports."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.headers = address, {"Authorization": f"Bearer {token}"}

    def __call__(self, client: httpx2.Client, items: list[dict[str, object]]) -> None:
        """Send, and wait until it is on the disk."""
        body = json.dumps({"evidence": items}).encode()
        client.post(f"{self.address}/v1/evidence", content=body, headers=self.headers, timeout=60).raise_for_status()


def load(send: Sender, counts: list[int], place: int, stop: threading.Event) -> None:
    """Send batches until told to stop, and count what was answered."""
    chance = random.Random(place)  # noqa: S311 - a benchmark
    with httpx2.Client() as client:
        while not stop.is_set():
            send(client, [item(chance, secrets.token_hex(8)) for _ in range(BATCH)])
            counts[place] += BATCH


def item(chance: random.Random, ident: str) -> dict[str, object]:
    """Return the result of a check."""
    failing = chance.random() < FAILING
    return {
        "id": ident,
        "time_ns": time.time_ns(),
        "kind": "check",
        "code": chance.choice(["mounts", "clock", "dns"]),
        "node": chance.choice(PHANTOMS[100:]),
        "status": "fail" if failing else "pass",
        "job": ident[:6],
        "message": "as long as the reasons of checks are, which is some sixty characters",
    }


def drained(send: Sender, lab: Lab, node: str) -> tuple[float, float]:
    """Report two fatal errors of a node; return after how many seconds it was decided, and was in Slurm."""
    items = [
        {"id": secrets.token_hex(8), "time_ns": time.time_ns(), "kind": "xid", "code": "79", "node": node}
        | {"gpu": f"GPU-{node}", "job": job}
        for job in ("1", "2")
    ]
    with httpx2.Client() as client:
        began = time.perf_counter()
        send(client, items)
        decided_s = time.perf_counter() - began
    while "Reason=piolet" not in slurm(lab, "scontrol", "show", "node", node):
        time.sleep(0.01)
    return decided_s, time.perf_counter() - began


def listed(lab: Lab) -> int:
    """Return how many nodes `sinfo -R` lists for our reasons."""
    lines = slurm(lab, "sinfo", "--list-reasons", "--noheader", "--Node", "--format=%N %E").splitlines()
    return len({line.split()[0] for line in lines if "piolet: " in line})


def slurm(lab: Lab, *argv: str) -> str:
    """Return what a command of Slurm prints."""
    return subprocess.run(argv, env=os.environ | lab.environment(), check=True, capture_output=True, text=True).stdout


def plain_inserts(where: str, batches: int) -> float:
    """Return how many rows a second the database takes as they are."""
    url = where.replace("postgresql://", "postgresql+psycopg://") if "://" in where else f"sqlite:///{where}"
    engine, chance = create_engine(url), random.Random(1)  # noqa: S311 - a benchmark
    made = [[(secrets.token_hex(16), json.dumps(item(chance, "x"))) for _ in range(BATCH)] for _ in range(batches)]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS plain"))
        connection.execute(text("CREATE TABLE plain (id TEXT PRIMARY KEY, text TEXT)"))
    began = time.perf_counter()
    for rows in made:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO plain VALUES (:id, :text)"), [{"id": a, "text": b} for a, b in rows])
    took_s = time.perf_counter() - began
    engine.dispose()
    return batches * BATCH / took_s


def rebuild(path: Path, entries: int) -> list[Result]:
    """Make a ledger of so many entries, and time the start of who decides and of who only reads along."""
    shipped, chance = policy.load(), random.Random(1)  # noqa: S311 - a benchmark
    with center.opened(path, shipped) as opened:
        while (opened.fleet.last.seq if opened.fleet.last else 0) < entries:
            opened.gather([evidence(chance) for _ in range(10 * BATCH)], len(PHANTOMS))
    what, follower = f"{entries:,} entries, {path.stat().st_size / 1e6:.0f} MB of SQLite", Follower(path)
    starts = [took_s(center.opened(path, shipped)) for _ in range(5)]
    first_s = took_s(follower.known())
    with center.opened(path, shipped) as opened:
        opened.gather([evidence(chance) for _ in range(BATCH)], len(PHANTOMS))
    return [
        measured(f"rebuild from {what}", "s", starts, aim="ours <= 20"),
        measured(f"the web reads {what}", "s", [first_s]),
        measured(f"the web reads {BATCH:,} more", "s", [took_s(follower.known())]),
    ]


def took_s(opened: AbstractContextManager[object]) -> float:
    """Return for how many seconds something is opened."""
    began = time.perf_counter()
    with opened:
        return time.perf_counter() - began


def evidence(chance: random.Random) -> Evidence:
    """Return the result of a check, as the service keeps it, or one time in ten the end of a job."""
    if chance.random() < ENDS:
        return ended(chance)
    return Evidence(
        made_id(chance.random()),
        time.time_ns(),
        Kind.CHECK,
        chance.choice(["mounts", "clock", "dns"]),
        chance.choice(PHANTOMS),
        status=Status.FAIL if chance.random() < FAILING else Status.PASS,
        job=str(chance.randrange(10**6)),
        message="as long as the reasons of checks are, which is some sixty characters",
    )


def ended(chance: random.Random) -> Evidence:
    """Return the end of a job on 1 to 64 nodes, as Slurm tells it."""
    count = chance.choice([1, 1, 1, 2, 4, 8, 16, 64])
    first = chance.randrange(1, len(PHANTOMS) - count)
    return Evidence(
        made_id(chance.random()),
        time.time_ns(),
        Kind.JOB,
        "COMPLETED",
        nodes=f"ph[{first:04d}-{first + count - 1:04d}]",
        status=Status.PASS,
        job=str(chance.randrange(10**6)),
        value=3600.0,
        source=Source.SLURM,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--drains", type=int, default=20)
    parser.add_argument("--entries", type=int, default=1_000_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
