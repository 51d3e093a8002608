"""Services as chains of jobs on a real Slurm, behind a real gateway, asked all the time."""

import asyncio
import csv
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import httpx2
import metric_stores
import pytest
from model_clients import Tally, keep_asking
from model_servers import CHECKOUT, KEY, LLAMA, gateway

from piolet.lab import Spec, up
from piolet.service.slurm.places import Place

pytestmark = pytest.mark.cluster

PIOLET = Path(sys.executable).parent / "piolet"
SERVER = CHECKOUT / "examples/05-model-on-slurm/server.py"
ENGINE = ["python3", str(LLAMA), "--port", "$(PORT)"]
LATER = datetime.now(UTC).date() + timedelta(days=30)
SERVICE = """name = "chat"
project = "climate"
run_on = "slurm"
command = {command}
replicas = {replicas}
expires = {expires}
[health]
path = "/health"
startup_s = 120
period_s = 1
[slurm]
time_limit = "{time_limit}"
overlap_minutes = 1
drain_s = 2
"""


@dataclass
class Desk:
    """Where a user deploys the service climate/chat."""

    on_lab: object
    user: str
    root: Path

    def write(self, command=None, replicas=1, time_limit="60", more=""):
        command = command or ["python3", str(SERVER), __file__, "--port", "$(PORT)"]
        text = (
            SERVICE.format(command=json.dumps(command), replicas=replicas, time_limit=time_limit, expires=LATER) + more
        )
        (self.root / "service.toml").write_text(text)

    def __call__(self, *words, check=True):
        environment = {
            "PIOLET_ROOT": str(self.root),
            "PIOLET_SERVICE_PLATFORM": str(self.root / "none.toml"),
            "EDF_PATH": str(CHECKOUT / "examples/environments"),
            "PIOLET_ENV_IMAGES": str(CHECKOUT / ".images"),
            "PATH": f"{PIOLET.parent}:{os.environ['PATH']}",
        }
        argv = (PIOLET, "service", *words)
        return self.on_lab(*argv, user=self.user, cwd=self.root, env=environment, check=check)

    @property
    def place(self):
        return Place(self.root / "services/climate/chat")

    def serving(self):
        """The jobs that have answered for long enough to replace others."""
        return {each.job for each in self.place.endpoints() if each.beat > 3}

    def squeue(self, *options):
        return self.on_lab("squeue", "--noheader", "--user", self.user, *options).stdout.split()


@pytest.fixture
def desk(on_lab, user):
    root = Path(tempfile.mkdtemp(prefix="piolet-test-", dir="/var/tmp"))
    shutil.chown(root, user)
    root.chmod(0o755)
    made = Desk(on_lab, user, root)
    yield made
    made("rm", "climate/chat", "--now", check=False)
    eventually(lambda: not made.squeue())
    shutil.rmtree(root)


@pytest.fixture
def front(desk, tmp_path):
    with gateway(tmp_path) as running:
        desk.place.path.mkdir(parents=True)
        shutil.chown(desk.root / "services", desk.user)
        for path in (desk.root / "services/climate", desk.place.path):
            shutil.chown(path, desk.user)
        (tmp_path / "chat").symlink_to(desk.place.path)
        yield running


def eventually(holds):
    """Wait until `holds()`; the test's own time-out is the only limit."""
    while not holds():
        time.sleep(0.2)


class Load:
    """Clients that ask the gateway all the time, in a thread."""

    def __init__(self, running, clients=8):
        self.tally, self.over = Tally(), Event()
        asking = keep_asking(running.url, KEY, clients, self.over.is_set, self.tally, words=20)
        self.thread = Thread(target=lambda: asyncio.run(asking))

    def __enter__(self):
        self.thread.start()
        eventually(lambda: self.tally.ended["whole"])
        return self.tally

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def test_a_new_deployment_takes_over_under_load_and_none_fails(desk, front):
    """llama.cpp serves: two jobs take over from one."""
    desk.write(ENGINE)
    assert "replica 0 is job" in desk("deploy").stdout
    eventually(desk.serving)
    first = desk.serving()
    with Load(front) as tally:
        desk.write(ENGINE, replicas=2)
        desk("deploy")
        eventually(lambda: len(desk.serving() - first) == 2)
        eventually(lambda: not {str(job) for job in first} & set(desk.squeue("--format=%A")))
        at_hand_over = tally.ended["whole"]
        eventually(lambda: tally.ended["whole"] > at_hand_over)
    assert tally.failures == {}
    status = json.loads(desk("status", "--format", "json").stdout)
    assert [(each["service"], each["most_replicas"], each["state"]) for each in status] == [("chat", 2, "2 ready")]
    assert [(each["replica"], each["reason"]) for each in status[0]["waiting"]] == [
        (0, "Dependency"),
        (1, "Dependency"),
    ]
    assert desk("status").stdout.count("climate/chat: job ") == 2
    assert "ready" in desk("logs", "climate/chat", "--lines", "9999").stdout
    assert "2 running jobs ending" in desk("rm", "climate/chat").stdout
    eventually(lambda: not desk.squeue())
    assert not list(desk.place.path.glob("endpoints/*"))


def test_a_service_runs_in_its_environment_on_vetted_nodes(desk):
    command = ["python3", "-m", "http.server", "--directory", "/usr/lib/python3/dist-packages/mlxtend", "$(PORT)"]
    desk.write(command, more='environment = "demo"\nvet = "quick"\nrecord = true\n')
    path = desk.root / "service.toml"
    path.write_text(path.read_text().replace('"/health"', '"/__init__.py"'))  # which the image has, and no node
    desk("deploy")
    eventually(desk.serving)
    (job,) = desk.serving()
    (logbook,) = desk.root.glob(f"*/{job}")
    assert json.loads((logbook / "environment.lock.json").read_text())
    found = [json.loads(line) for each in logbook.glob("vet/*.jsonl") for line in each.read_text().splitlines()]
    assert found
    eventually(logbook.joinpath("telemetry").is_dir)
    assert "1 running job ending" in desk("rm", "climate/chat").stdout
    eventually(lambda: not desk.squeue())


def test_status_says_what_waits_and_why(desk):
    desk.write(ENGINE, replicas=6)  # on five nodes
    desk("deploy")

    def waiting():
        (service,) = json.loads(desk("status", "--format", "json").stdout)
        return [each for each in service["waiting"] if each["reason"] not in {"Dependency", ""}]

    eventually(lambda: len(waiting()) == 1 and waiting()[0]["reason"] in {"Resources", "Priority"})
    (found,) = waiting()
    assert re.search(rf"climate/chat: job {found['job']} waits: (Resources|Priority), ", desk("status").stdout)


def test_an_engine_that_dies_is_followed_and_its_replica_leaves_the_list(desk, front):
    desk.write()
    desk("deploy")
    eventually(desk.serving)
    (first,) = desk.serving()
    assert front.ask().status_code == 200
    for process in engines_of(desk.place, first):
        os.kill(process, signal.SIGKILL)
    eventually(lambda: desk.serving() - {first})
    assert not desk.place.endpoint(first).exists()
    assert "ended with status" in next(each.ended for each in desk.place.attempts() if each.job == first)
    eventually(lambda: front.ask().status_code == 200)


def engines_of(place, job):
    """The processes of the model server that listen on the endpoint's port."""
    port = json.loads(place.endpoint(job).read_text())["port"]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(SERVER).encode() in words and str(port).encode() in words and b"run" not in words:
            yield int(path.parent.name)


def test_three_jobs_that_never_are_ready_end_the_chain(desk):
    desk.write(command=["false"])
    desk("deploy")
    eventually(lambda: any("the chain ends here" in each.ended for each in desk.place.attempts()))
    eventually(lambda: not desk.squeue())
    assert [each.failures for each in desk.place.attempts()] == [0, 1, 2, 3]
    assert "the chain ends here" in desk("status").stdout


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (("drain_s = 2", "partition = 'mian'"), 2, 'did you mean "main"?'),
        (("drain_s = 2", "environment = './none.toml'"), 2, "no such environment file"),
        (("overlap_minutes = 1", "overlap_minutes = 60"), 2, "not longer than the overlap"),
        ((f"expires = {LATER}", "expires = 2020-01-01"), 2, "lease-length"),
        (("[health]", "image = 'a'\n[health]"), 2, "image does not go with"),
    ],
)
def test_what_cannot_run_is_refused_and_leaves_nothing(desk, change, status, says):
    desk.write()
    path = desk.root / "service.toml"
    path.write_text(path.read_text().replace(*change))
    done = desk("deploy", check=False)
    assert done.returncode == status
    assert says in done.stderr
    assert not desk.squeue()
    assert not desk.place.path.exists()


@pytest.mark.slow
def test_jobs_hand_over_before_their_time_is_over_and_when_their_node_is_drained(desk, front, on_lab):
    desk.write(time_limit="2")
    desk("deploy")
    eventually(desk.serving)
    with Load(front) as tally:
        eventually(lambda: len({each.job for each in desk.place.attempts() if each.ended}) >= 1)
        eventually(desk.serving)
        job = max(desk.serving())
        node = next(each.node for each in desk.place.attempts() if each.job == job)
        on_lab("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
        try:
            eventually(lambda: [each for each in desk.place.attempts() if each.job > job and each.ready_ns])
            eventually(lambda: next(each.ended for each in desk.place.attempts() if each.job == job))
        finally:
            on_lab("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert tally.failures == {}
    assert tally.ended["whole"] > 100
    ended = [each.ended for each in desk.place.attempts() if each.ended]
    assert all("serves in its place" in why for why in ended)


@pytest.mark.slow
def test_a_hung_engine_leaves_the_list_and_is_replaced(desk, front):
    desk.write()
    desk("deploy")
    eventually(desk.serving)
    (first,) = desk.serving()
    hung = list(engines_of(desk.place, first))
    for process in hung:
        os.kill(process, signal.SIGSTOP)
    try:
        eventually(lambda: not desk.place.endpoint(first).exists())
        eventually(lambda: desk.serving() - {first})
        eventually(lambda: front.ask().status_code == 200)
    finally:
        for process in hung:
            with suppress(ProcessLookupError):  # given up, and killed
                os.kill(process, signal.SIGCONT)
    assert "missed" in next(each.ended for each in desk.place.attempts() if each.job == first)


@pytest.mark.slow
@pytest.mark.usefixtures("machine")
def test_a_statement_joins_git_slurm_and_real_use(commands_on, tmp_path):
    """What was reserved, from a repository; what jobs took, from sacct; what was used, from VictoriaMetrics."""
    made = up(Spec(name=f"test-{secrets.token_hex(4)}", nodes=1, gpus=1, accounting=True))
    try:
        run = commands_on(made)
        run("srun", "--job-name=climate/chat/0", "--gpus-per-node=1", "sleep", "2")
        account = []
        while not account:
            account = run("sacct", "-nXPo", "Account", "--starttime=now-1hour").stdout.split()
        environment = site_of(tmp_path, account[0])
        service = tmp_path / "service.toml"
        service.write_text(WEB.format(expires=LATER))
        run(PIOLET, "service", "deploy", service, env=environment)
        with metric_stores.running("victoria-metrics", "127.0.0.1:9", tmp_path / "store") as store:
            used_half_a_processor(store.url, seconds=600)
            words = (PIOLET, "service", "account", "--prometheus", store.url)

            def lines():
                (statement, _) = json.loads(run(*words, "--format=json", env=environment, check=False).stdout)
                return {each["service"]: each for each in statement["lines"]}

            eventually(lambda: lines().get("chat", {}).get("gpu_hours") and lines()["web"]["cpu_hours_used"])
            found = lines()
            table = run(*words, "--format=csv", "--page", tmp_path / "page.html", env=environment, check=False).stdout
    finally:
        made.down()
    assert found["web"]["cpu_hours_used"] == pytest.approx(600 / 2 / 3600, rel=0.2)
    assert found["web"]["runs_on"] == "kubernetes"
    assert found["chat"]["node_hours"] == found["chat"]["gpu_hours"] > 0
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["service"], row["runs_on"]) for row in rows[:2]] == [("web", "kubernetes"), ("chat", "slurm")]
    assert float(rows[1]["gpu_hours"]) == pytest.approx(found["chat"]["gpu_hours"], abs=0.1)
    page = (tmp_path / "page.html").read_text()
    assert "web" in page
    assert "chat" in page


WEB = f"""name = "web"
project = "climate"
image = "ghcr.io/example/web@sha256:{"a" * 64}"
port = 8080
expires = {{expires}}
health = {{{{ path = "/" }}}}
"""


def site_of(directory, account):
    """A repository and a platform that charges jobs of the account to a project; what its user's environment is."""
    repository = directory / "services.git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "--quiet", directory / "work"], check=True)
    subprocess.run([*git, "-C", directory / "work", "commit", "--quiet", "--allow-empty", "-m", "Begin"], check=True)
    subprocess.run([*git, "clone", "--quiet", "--bare", directory / "work", repository], check=True)
    text = (CHECKOUT / "examples/04-services/platform.toml").read_text()
    text = text.replace("https://git.example.org/platform/services.git", str(repository))
    path = directory / "platform.toml"
    path.write_text(text.replace("[projects.climate]\n", f'[projects.climate]\nslurm_account = "{account}"\n'))
    names = {f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return names | {"PIOLET_SERVICE_PLATFORM": str(path), "PIOLET_ROOT": str(directory / "root")}


def used_half_a_processor(url, seconds):
    """Write what cAdvisor would have counted of the service's container until now."""
    now, labels = round(time.time()), 'namespace="svc-climate",container="web",pod="web-1"'
    samples = [
        f"container_cpu_usage_seconds_total{{{labels}}} {t / 2} {(now - seconds + t) * 1000}"
        for t in range(0, seconds + 1, 30)
    ]
    httpx2.post(f"{url}/api/v1/import/prometheus", content="\n".join(samples)).raise_for_status()
    httpx2.get(f"{url}/internal/force_flush").raise_for_status()
