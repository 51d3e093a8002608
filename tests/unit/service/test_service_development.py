"""`piolet service run --local` under a real Podman, and the whole way of a service: edit, check, deploy, run, ask."""

import base64
import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import oci_images
import pytest
from click.testing import CliRunner
from git_server import git_server

from piolet.cli.main import command
from piolet.core.errors import UsageError
from piolet.service import development
from piolet.tools import kubectl, podman

PLATFORM = (Path(__file__).parents[3] / "examples/04-services/platform.toml").read_text()
CONTAINERS = """[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
LATER = datetime.now(UTC).date() + timedelta(days=30)
SERVICE = """name = "web"
project = "climate"
image = "{image}"
command = ["/bin/busybox", "httpd", "-f", "-p", "$(PORT)", "-h", "/etc"]
port = 8080
expires = {expires}
[health]
path = "/release"
period_s = 1
"""


def test_what_podman_would_misread_is_left_out_and_the_rest_is_as_rendered(desk, right, tmp_path):
    (desk.directory / "conf").write_text("a: 1\n")
    more = '[env]\nA = "$(B)"\n[secrets]\nS = "climate/s#x"\n[storage.data]\npath = "/data"\nsize = "1GiB"\n'
    text = right.replace("port", 'command = ["serve", "$(PORT)", "$(A)"]\nport') + more + '[files]\n"/c" = "conf"\n'
    local = development.adapted(desk.read(text), desk.platform, port=1234, secrets={"S": "hush"}, files=tmp_path)
    (container,) = local.pod["spec"]["containers"]
    assert container["command"] == ["serve", "8080", "$(B)"]
    assert {"name": "S", "value": "hush"} in container["env"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert local.pod["spec"]["securityContext"]["runAsUser"] == 65532
    assert container["ports"][0]["hostIP"] == "127.0.0.1"
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/data", "/c"}
    assert not {"livenessProbe", "readinessProbe", "startupProbe"} & set(container)
    assert "nodeSelector" not in local.pod["spec"]
    assert local.volumes == ("piolet-climate-web-data",)


def test_a_secret_without_a_value_is_one_error(desk, right, tmp_path):
    file = desk.read(f'{right}[secrets]\nS = "climate/s#x"\n')
    with pytest.raises(UsageError, match="the secret S has no value here"):
        development.adapted(file, desk.platform, port=1, secrets={}, files=tmp_path)


def test_a_state_is_parsed():
    assert [podman.parse_state(text) for text in ("exited 3\n", "running 0\n", "created 0\n")] == [3, None, None]


def test_logs_of_pods_are_asked_by_the_label_of_their_service():
    """As `kubectl logs --help` documents its options; no cluster was asked."""
    words = kubectl.logs_argv("svc-climate", "web", 20)
    assert words == [
        "kubectl",
        "logs",
        "--namespace=svc-climate",
        "--selector=app.kubernetes.io/name=web",
        "--tail=20",
        "--prefix",
    ]  # fmt: skip - a command line


@dataclass
class Desk:
    """A user with a registry, a git server, Podman, and a platform that names them."""

    home: Path
    environment: dict
    image: str
    git: str

    def piolet(self, *words, check=True):
        argv = [sys.executable, "-m", "piolet", "service", *map(str, words)]
        done = subprocess.run(argv, env=self.environment, cwd=self.home, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def says(self, *words, exits=0):
        """What a command prints, in this process: starting Python takes longer than most commands."""
        done = CliRunner().invoke(command, ["service", *map(str, words)], env=self.environment, standalone_mode=False)
        assert (done.exception, done.return_value or 0) == (None, exits)
        return done.stdout

    def start(self, *words):
        argv = [sys.executable, "-m", "piolet", "service", "run", "--local", *map(str, words)]
        return subprocess.Popen(argv, env=self.environment, cwd=self.home, stderr=subprocess.PIPE, text=True)

    def podman(self, *words):
        return subprocess.run(
            ["podman", *words], env=self.environment, capture_output=True, text=True, check=False
        ).stdout


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    missing = [each for each in ("podman", "runc", "catatonit", "docker-registry", "skopeo") if not shutil.which(each)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    made = oci_images.layout(tmp_path_factory.mktemp("image") / "layout", [oci_images.busybox_layer()], ("amd64",))
    for found in oci_images.serve(tmp_path_factory.mktemp("registry")):
        found.push(made, "team/web:1")
        yield found


@pytest.fixture
def user(registry, tmp_path):
    pair = base64.b64encode(f"{oci_images.USER}:{oci_images.PASSWORD}".encode()).decode()
    login = json.dumps({"auths": {registry.host: {"auth": pair}}})
    files = {
        ".docker/config.json": login,
        "auth.json": login,
        "containers.conf": CONTAINERS,
        "storage.conf": f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/images"\nrunroot = "{tmp_path}/run"\n',
        "registries.conf": f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n',
        ".gitconfig": "[user]\nname = Ada\nemail = ada@example.org\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "PIOLET_SERVICE_PLATFORM": str(tmp_path / "platform.toml"),
        "PIOLET_ROOT": str(tmp_path / "root"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
        "CONTAINERS_CONF": str(tmp_path / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf"),
        "NO_PROXY": "127.0.0.1",
    }
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", tmp_path / "git/services.git"], check=True)
    with git_server(tmp_path / "git") as url:
        git = f"{url}/services.git"
        platform = PLATFORM.replace("https://git.example.org/platform/services.git", git)
        (tmp_path / "platform.toml").write_text(platform.replace("registry.example.org/ml", f"{registry.host}/team"))
        made = Desk(tmp_path, environment, f"{registry.host}/team/web:1", git)
        yield made
        made.podman("pod", "rm", "--force", "--time=0", "--all")


def begin(user):
    """Give the repository its first commit, as its operators did."""
    repository = user.home / "git/services.git"
    run = ["git", "-C", str(repository)]
    subprocess.run([*run, "config", "http.receivepack", "true"], check=True)
    tree = subprocess.run([*run, "hash-object", "-w", "-t", "tree", "/dev/null"], capture_output=True, check=True)
    argv = [*run, "-c", "user.name=a", "-c", "user.email=a", "commit-tree", "-m", "Begin", tree.stdout.decode().strip()]
    commit = subprocess.run(argv, capture_output=True, check=True).stdout.decode().strip()
    subprocess.run([*run, "update-ref", "refs/heads/main", commit], check=True)


def said(process, text):
    """Read what the process says until `text` is in it."""
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it never said {text!r}")


@contextmanager
def running(user, *words):
    """The service on this machine, once it says that it is ready: its process and its address."""
    process = user.start(*words)
    try:
        yield process, said(process, "ready: ").split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def test_edit_check_deploy_git_run_and_ask(user, monkeypatch):
    begin(user)
    monkeypatch.chdir(user.home)
    path = user.home / "service.toml"
    path.write_text(SERVICE.format(image=user.image, expires=LATER))
    assert "image-digest" in user.says("check", exits=1)
    user.says("pin")
    assert user.says("check") == "web: right\n"
    assert "pushed" in user.says("deploy")
    clone = user.home / "clone"
    subprocess.run(["git", "clone", "--quiet", user.git, clone], env=user.environment, check=True)
    deployed = clone / "projects/climate/web"
    assert (deployed / "service.toml").read_text() == path.read_text()
    assert user.says("verify", clone / "projects").endswith("0 refused\n")
    with running(user, deployed) as (_, address):
        assert httpx2.get(f"{address}/release", trust_env=False).text == "made by a test\n"
        assert user.podman("ps", "--format", "{{.Names}}").count("piolet-climate-web-web") == 1
    assert "piolet-climate-web" not in user.podman("pod", "ps", "--format", "{{.Name}}")


@pytest.mark.slow
def test_a_service_that_hangs_is_started_anew(user):
    """And finds its volume as it left it."""
    text = SERVICE.format(image=user.image, expires=LATER)
    server = json.dumps(
        ["/bin/busybox", "sh", "-c", "echo begun >> /data/begun; exec busybox httpd -f -p 8080 -h /data"]
    )
    text = re.sub("command = .*", f"command = {server}", text).replace('"/release"', '"/begun"')
    (user.home / "service.toml").write_text(f'{text}[storage.data]\npath = "/data"\nsize = "1GiB"\n')
    with running(user) as (process, _):
        user.podman("kill", "--signal", "STOP", "piolet-climate-web-web")
        said(process, "not ready")
        said(process, "started anew")
        address = said(process, "ready: ").split()[1]
        assert httpx2.get(f"{address}/begun", trust_env=False).text == "begun\nbegun\n"
    with running(user) as (_, address):
        assert httpx2.get(f"{address}/begun", trust_env=False).text.count("begun") == 3
    user.podman("volume", "rm", "piolet-climate-web-data")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "to try one here: piolet service run --local"),
        (("--local", "--secrets", "none.toml"), "cannot read"),
    ],
)
def test_what_cannot_run_here_is_one_error(user, words, says):
    (user.home / "service.toml").write_text(SERVICE.format(image=user.image, expires=LATER))
    done = user.piolet("run", *words, check=False)
    assert done.returncode in {2, 3}
    assert says in done.stderr
