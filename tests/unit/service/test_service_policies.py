"""What `check` says, on the desk; and the policies as they are, on objects that nobody's file would render."""

import itertools
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from piolet.service import check, read
from piolet.service.policies import KINDS, policies, violations

EXAMPLES = Path(__file__).parents[3] / "examples/04-services"
TODAY = date(2027, 1, 15)

EXPECTED = {
    "mlflow": set(),
    "vector-store": set(),
    "chat": set(),
    "nightly-index": set(),
    "map": set(),
    "by-tag": {("image-digest", "image"), ("image-registry", "image"), ("login", "auth")},
    "gpu-on-internet": {
        ("quota", "resources.gpus"),
        ("probes", "port"),
        ("internet-commodity", "expose"),
        ("lease", "expires"),
    },
    "password-in-git": {
        ("secret-in-env", "env.DB_PASSWORD"),
        ("secret-in-command", "command[2]"),
        ("secret-owner", "secrets.SESSION_KEY"),
    },
    "root-everywhere": {
        ("pss-user", "user"),
        ("own-hosts", "host"),
        ("lease-length", "expires"),
        ("storage-kind", "storage.home"),
    },
    "far-too-large": {("quota", "resources.cpus"), ("quota", "resources.memory"), ("scaling", "replicas.max")},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_examples_break_just_these(platform, name):
    found = check(read(EXAMPLES / name), platform, TODAY)
    assert {(breach.policy, breach.key) for breach in found} == EXPECTED[name]
    assert all("service.toml" in breach.place and breach.why and breach.fix for breach in found)


def test_the_page_says_what_check_says(platform, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parents[1])
    page = Path("docs/reference/service-examples.md").read_text()
    for name in EXPECTED:
        file = read(Path("examples/04-services", name))
        said = "\n".join(map(str, check(file, platform, TODAY))) or f"{file.service.name}: right"
        assert f"```\n{said}\n```" in page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_every_example_is_here():
    assert {path.parent.name for path in EXAMPLES.glob("*/service.toml")} == set(EXPECTED)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("replicas = 9", "replicas"),
        ('[env]\nTOKEN = "abcdefgh1"', "secret-in-env"),
        ('[env]\nHARMLESS = "AKIAABCDEFGHIJKLMNOP"', "secret-in-env"),
    ],
)
def test_breaches_of_one_key(desk, right, text, policy):
    assert [breach.policy for breach in desk.check(right + text + "\n")] == [policy]


def test_a_secret_in_a_file_points_at_the_file(desk, right):
    (desk.directory / "key.pem").write_text("-----BEGIN RSA PRIVATE KEY-----\nx\n")
    found = desk.check(f'{right}[files]\n"/etc/key" = "key.pem"\n')
    assert [(breach.policy, breach.key) for breach in found] == [("secret-in-files", "files./etc/key")]


def test_an_unknown_project_is_said_first(desk, right):
    found = desk.check(right.replace("climate", "climat"))
    assert [(breach.policy, breach.fix) for breach in found] == [("project", 'did you mean "climate"?')]


META = {"name": "x", "namespace": "svc-climate", "labels": {"piolet/project": "climate"}}


@pytest.mark.parametrize(
    ("each", "policy"),
    [
        ({"kind": "Service", "metadata": META, "spec": {"type": "LoadBalancer"}}, "cluster-ip"),
        ({"kind": "Service", "metadata": META, "spec": {"externalIPs": ["10.0.0.1"]}}, "cluster-ip"),
        ({"kind": "Secret", "metadata": META}, "kinds"),
        ({"kind": "Service", "metadata": META | {"namespace": "svc-genome"}, "spec": {}}, "own-namespace"),
        ({"kind": "NetworkPolicy", "metadata": META, "spec": {"podSelector": {}}}, "narrow-network"),
        ({"kind": "Ingress", "metadata": META, "spec": {"rules": [{"host": "a.climate.services.example.org"}]}}, "tls"),
        (
            {"kind": "HTTPRoute", "metadata": META, "spec": {"hostnames": ["*.climate.services.example.org"]}},
            "own-hosts",
        ),
        (
            {
                "kind": "ExternalSecret",
                "metadata": META,
                "spec": {"secretStoreRef": {"name": "other"}, "data": [{"remoteRef": {"key": "climate/a"}}]},
            },
            "secret-store",
        ),
    ],
)
def test_objects_written_by_hand(platform, each, policy):
    each = each | {"apiVersion": KINDS.get(each["kind"], "v1")}
    assert {broken.policy.id for broken in violations(each, "climate", platform, TODAY)} == {policy}


def test_no_tenant_object_opens_gpu_pods(platform):
    labels = META["labels"] | {"piolet/run-on": "gpu"}
    spec = {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "x"}},
        "ingress": [{"from": [{"podSelector": {}}]}],
    }
    meta = META | {"labels": labels}
    each = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    assert {broken.policy.id for broken in violations(each, "climate", platform, TODAY)} == {"gpu-gateway"}


def test_policies_are_told_apart():
    names = [policy.id for policy in policies()]
    assert len(set(names)) == len(names)
    assert all(a.title != b.title for a, b in itertools.pairwise(policies()))


def piolet(*words, platform=EXAMPLES / "platform.toml"):
    argv = [sys.executable, "-m", "piolet", "service", *map(str, words)]
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PIOLET_SERVICE_PLATFORM": str(platform)}
    return subprocess.run(argv, check=False, capture_output=True, text=True, env=environ, timeout=30)


def test_the_command_from_new_to_rendered(tmp_path):
    path = tmp_path / "service.toml"
    asked = ("new", "mlflow", path, "--project", "climate", "--image", f"ghcr.io/example/mlflow@sha256:{'a' * 64}")
    assert piolet(*asked).stdout == f"{path}\n"
    again = piolet(*asked)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    checked = piolet("check", tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "mlflow: right\n")
    written = piolet("render", path, "--output", tmp_path / "out").stdout.split()
    assert f"{tmp_path}/out/deployment.yaml" in written
    assert piolet("render", path).stdout.count("kind: Deployment") == 1


def test_the_command_says_each_breach_with_its_place(tmp_path):
    path = tmp_path / "by-tag/service.toml"
    path.parent.mkdir()
    later = date.fromordinal(datetime.now(UTC).toordinal() + 30)
    path.write_text((EXAMPLES / "by-tag/service.toml").read_text().replace("2027-06-30", str(later)))
    done = piolet("check", path)
    assert done.returncode == 1
    assert "by-tag/service.toml:3 (image) breaks image-digest: an image is named by its digest" in done.stdout
    assert "by-tag/service.toml:3 (image) breaks image-registry" in done.stdout
    assert "label breaks 3 rules" in done.stderr


def test_without_a_platform_the_command_says_what_to_do(tmp_path):
    done = piolet("check", EXAMPLES / "mlflow", platform=tmp_path / "gone")
    assert done.returncode == 2
    assert "setting service.platform" in done.stderr
