"""What `check` says, on the desk; and the policies as they are, on objects that nobody's file would render."""

import copy
import itertools
import subprocess
import sys
from datetime import date
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


POD = {
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "svc-climate", "labels": {"piolet/project": "climate"}},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "c",
                "image": "i",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


def pod(path=(), value=None):
    """The smallest restricted pod, with `value` set at `path`, or removed there when it is None."""
    made = copy.deepcopy(POD)
    *parents, last = path or ("spec", "unused")
    inner = made
    for part in parents:
        inner = inner.setdefault(part, {}) if isinstance(part, str) else inner[part]
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = value
    return made


def security(each, platform):
    found = {broken.policy.id for broken in violations(each, "climate", platform, TODAY)}
    return {name for name in found if name.startswith("pss-")}


CONTAINER = ("spec", "containers", 0)
SECURITY = (*CONTAINER, "securityContext")
CONTEXT = ("spec", "securityContext")
APPARMOR = "container.apparmor.security.beta.kubernetes.io"
REFUSED = [
    (("spec", "hostNetwork"), True, "pss-host-namespaces"),
    (("spec", "hostPID"), True, "pss-host-namespaces"),
    (("spec", "hostIPC"), True, "pss-host-namespaces"),
    ((*SECURITY, "privileged"), True, "pss-privileged"),
    ((*SECURITY, "capabilities"), None, "pss-capabilities"),
    ((*SECURITY, "capabilities"), {"drop": ["NET_RAW"]}, "pss-capabilities"),
    ((*SECURITY, "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "pss-capabilities"),
    (("spec", "volumes"), [{"name": "v", "hostPath": {"path": "/"}}], "pss-volumes"),
    (("spec", "volumes"), [{"name": "v", "nfs": {"server": "s", "path": "/"}}], "pss-volumes"),
    ((*CONTAINER, "ports"), [{"containerPort": 80, "hostPort": 80}], "pss-host-ports"),
    ((*SECURITY, "appArmorProfile"), {"type": "Unconfined"}, "pss-apparmor"),
    (("metadata", "annotations"), {f"{APPARMOR}/c": "unconfined"}, "pss-apparmor-annotations"),
    ((*CONTEXT, "windowsOptions"), {"hostProcess": True}, "pss-host-process"),
    ((*CONTEXT, "seLinuxOptions"), {"type": "spc_t"}, "pss-selinux"),
    ((*CONTEXT, "seLinuxOptions"), {"user": "system_u"}, "pss-selinux"),
    ((*SECURITY, "procMount"), "Unmasked", "pss-proc"),
    ((*CONTEXT, "sysctls"), [{"name": "kernel.msgmax", "value": "1"}], "pss-sysctls"),
    ((*SECURITY, "allowPrivilegeEscalation"), None, "pss-privilege-escalation"),
    ((*SECURITY, "allowPrivilegeEscalation"), True, "pss-privilege-escalation"),
    ((*CONTEXT, "runAsNonRoot"), None, "pss-non-root"),
    ((*SECURITY, "runAsNonRoot"), False, "pss-non-root"),
    ((*CONTEXT, "runAsUser"), 0, "pss-user"),
    ((*SECURITY, "runAsUser"), 0, "pss-user"),
    ((*CONTEXT, "seccompProfile"), None, "pss-seccomp"),
    ((*SECURITY, "seccompProfile"), {"type": "Unconfined"}, "pss-seccomp"),
]
ACCEPTED = [
    ((), None),
    (("spec", "hostNetwork"), False),
    ((*SECURITY, "capabilities"), {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
    (("spec", "volumes"), [{"name": "v", "emptyDir": {}}, {"name": "w", "csi": {"driver": "d"}}]),
    ((*CONTAINER, "ports"), [{"containerPort": 80, "hostPort": 0}]),
    ((*SECURITY, "appArmorProfile"), {"type": "Localhost", "localhostProfile": "p"}),
    (("metadata", "annotations"), {f"{APPARMOR}/c": "localhost/p", "other": "unconfined"}),
    ((*CONTEXT, "windowsOptions"), {"hostProcess": False}),
    ((*CONTEXT, "seLinuxOptions"), {"type": "container_t", "level": "s0"}),
    ((*SECURITY, "procMount"), "Default"),
    ((*CONTEXT, "sysctls"), [{"name": "net.ipv4.ping_group_range", "value": "0 1"}]),
    ((*SECURITY, "runAsNonRoot"), True),
    ((*SECURITY, "runAsUser"), 1000),
    ((*SECURITY, "seccompProfile"), {"type": "Localhost", "localhostProfile": "p"}),
]


@pytest.mark.parametrize(("path", "value", "policy"), REFUSED)
def test_pod_security_refuses(platform, path, value, policy):
    assert security(pod(path, value), platform) == {policy}


@pytest.mark.parametrize(("path", "value"), ACCEPTED)
def test_pod_security_accepts(platform, path, value):
    assert security(pod(path, value), platform) == set()


def test_every_rule_of_pod_security_has_a_case_that_breaks_it():
    assert {policy.id for policy in policies() if policy.id.startswith("pss-")} == {case[2] for case in REFUSED}


def test_init_containers_count_and_templates_are_looked_into(platform):
    spec = POD["spec"] | {"initContainers": [{"name": "i", "image": "i"}]}
    expected = {"pss-capabilities", "pss-privilege-escalation"}
    meta = POD["metadata"]
    made = [
        {"kind": "Pod", "metadata": meta, "spec": spec},
        {"kind": "Deployment", "metadata": meta, "spec": {"template": {"spec": spec}}},
        {"kind": "CronJob", "metadata": meta, "spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}},
    ]
    assert [security(each, platform) for each in made] == [expected] * 3


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


def test_the_command_says_each_breach_with_its_place():
    done = piolet("check", EXAMPLES / "by-tag")
    assert done.returncode == 1
    assert "by-tag/service.toml:3 (image) breaks image-digest: an image is named by its digest" in done.stdout
    assert "by-tag/service.toml:3 (image) breaks image-registry" in done.stdout
    assert "label breaks 3 rules" in done.stderr


def test_without_a_platform_the_command_says_what_to_do(tmp_path):
    done = piolet("check", EXAMPLES / "mlflow", platform=tmp_path / "gone")
    assert done.returncode == 2
    assert "setting service.platform" in done.stderr
