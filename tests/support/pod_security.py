"""Pods that the Pod Security Standard `restricted` accepts and refuses, control by control.

Written from kubernetes.io/docs/concepts/security/pod-security-standards, and from what the admission plugin of each
release does where the page is silent: which release a value belongs to, what a pod says for its containers, what it may
leave out. Each value is tried in containers, init containers and ephemeral containers, and in the pod where it has one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RELEASES = range(30, 36)
ABSENT = object()
ANNOTATION = "container.apparmor.security.beta.kubernetes.io/c"
PLACES = ("containers", "initContainers", "ephemeralContainers")
SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "svc-climate", "labels": {"piolet/project": "climate"}},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "i", "securityContext": SAFE}],
    },
}
"""The smallest pod that `restricted` accepts."""

INVALID = {"pss-privileged", "pss-host-process", "pss-proc", "pss-apparmor-annotations"}
"""Controls whose forbidden values contradict something else in the smallest pod."""


@dataclass(frozen=True)
class Case:
    """A pod, the control that is tried, and whether it is broken in the releases."""

    name: str
    policy: str
    pod: dict[str, Any]
    broken: bool
    releases: range = RELEASES

    @property
    def creatable(self) -> bool:
        """Whether an API server takes such a pod at all, to then judge its security: validation comes before it."""
        init_hooks = self.policy == "pss-probe-hosts" and "initContainers" in self.pod["spec"]
        invalid = self.policy in INVALID and self.broken
        return not (invalid or init_hooks or {"ephemeralContainers", "os"} & set(self.pod["spec"]))


def changed(changes: dict[str, Any], place: str = "containers") -> dict[str, Any]:
    """The smallest pod with other values, by their path; what begins with `c.` is in a container of `place`."""
    pod = copy.deepcopy(POD)
    spec = pod["spec"]
    if place != "containers":
        spec[place] = [copy.deepcopy(spec["containers"][0]) | {"name": "d"}]
    for path, value in changes.items():
        inner, *parents = ("spec", *path.split(".")) if path != "metadata.annotations" else path.split(".")
        target = pod[inner] if inner != "spec" else spec
        if parents[0] == "c":
            target, parents = spec[place][0], parents[1:]
        for part in parents[:-1]:
            target = target.setdefault(part, {})
        if value is ABSENT:
            target.pop(parents[-1], None)
        else:
            target[parents[-1]] = value
    return pod


def profile(kind: str) -> dict[str, str]:
    return {"type": kind} | ({"localhostProfile": "p"} if kind == "Localhost" else {})


def volume(kind: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "v", kind: more}]


def sysctl(name: str) -> list[dict[str, str]]:
    return [{"name": name, "value": "1"}]


IN_CONTAINERS: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "pss-privileged": {"securityContext.privileged": ([ABSENT, False], [True])},
    "pss-capabilities": {
        "securityContext.capabilities": (
            [
                {"drop": ["ALL"]},
                {"drop": ["NET_RAW", "ALL"]},
                {"drop": ["ALL"], "add": []},
                {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            ],
            [
                ABSENT,
                {},
                {"drop": []},
                {"drop": ["all"]},
                {"drop": ["NET_RAW"]},
                {"add": ["NET_BIND_SERVICE"]},
                *({"drop": ["ALL"], "add": [name]} for name in ("CHOWN", "NET_RAW", "SYS_ADMIN", "ALL")),
                {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "SETUID"]},
            ],
        )
    },
    "pss-host-ports": {
        "ports": (
            [ABSENT, [], [{"containerPort": 80}], [{"containerPort": 80, "hostPort": 0}]],
            [[{"containerPort": 80, "hostPort": 80}], [{"containerPort": 80}, {"containerPort": 81, "hostPort": 8081}]],
        )
    },
    "pss-apparmor": {
        "securityContext.appArmorProfile": (
            [ABSENT, profile("RuntimeDefault"), profile("Localhost")],
            [profile("Unconfined")],
        )
    },
    "pss-host-process": {
        "securityContext.windowsOptions": ([ABSENT, {}, {"hostProcess": False}], [{"hostProcess": True}])
    },
    "pss-selinux": {
        "securityContext.seLinuxOptions": (
            [
                *(ABSENT, {}, {"type": ""}, {"level": "s0:c1,c2"}, {"user": "", "role": ""}),
                *({"type": f"container_{kind}t"} for kind in ("", "init_", "kvm_")),
            ],
            [{"type": "spc_t"}, {"type": "container_logreader_t"}, {"user": "system_u"}, {"role": "sysadm_r"}],
        )
    },
    "pss-proc": {"securityContext.procMount": ([ABSENT, "Default"], ["Unmasked"])},
    "pss-privilege-escalation": {"securityContext.allowPrivilegeEscalation": ([False], [ABSENT, True])},
    "pss-non-root": {"securityContext.runAsNonRoot": ([ABSENT, True], [False])},
    "pss-user": {"securityContext.runAsUser": ([ABSENT, 1, 65532], [0])},
    "pss-seccomp": {
        "securityContext.seccompProfile": (
            [ABSENT, profile("RuntimeDefault"), profile("Localhost")],
            [profile("Unconfined")],
        )
    },
}
"""By control and path in a container: values that are accepted, and values that are refused."""

IN_POD: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "pss-host-namespaces": {name: ([ABSENT, False], [True]) for name in ("hostNetwork", "hostPID", "hostIPC")},
    "pss-volumes": {
        "volumes": (
            [
                ABSENT,
                [],
                volume("configMap", name="m"),
                volume("csi", driver="d"),
                volume("downwardAPI", items=[]),
                volume("emptyDir"),
                volume("ephemeral", volumeClaimTemplate={"spec": {"accessModes": ["ReadWriteOnce"], "resources": {}}}),
                volume("persistentVolumeClaim", claimName="c"),
                volume("projected", sources=[]),
                volume("secret", secretName="s"),
            ],
            [
                volume("hostPath", path="/"),
                volume("nfs", server="s", path="/"),
                volume("iscsi", targetPortal="p", iqn="iqn.2001-04.com.example:s", lun=0),
                volume("rbd", monitors=["m"], image="i"),
                volume("cephfs", monitors=["m"]),
                volume("glusterfs", endpoints="e", path="p"),
                volume("gcePersistentDisk", pdName="p"),
                volume("awsElasticBlockStore", volumeID="v"),
                volume("gitRepo", repository="r"),
                volume("fc", targetWWNs=["w"], lun=0),
                volume("flexVolume", driver="d"),
                [*volume("emptyDir"), {"name": "w", "hostPath": {"path": "/etc"}}],
            ],
        )
    },
    "pss-sysctls": {
        "securityContext.sysctls": (
            [
                ABSENT,
                [],
                *map(sysctl, ("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies")),
                *map(sysctl, ("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start")),
                *map(sysctl, ("net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time")),
                *map(sysctl, ("net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl")),
                sysctl("net.ipv4.tcp_keepalive_probes"),
            ],
            [*map(sysctl, ("kernel.msgmax", "net.core.somaxconn", "net.ipv4.ip_forward", "vm.swappiness"))],
        )
    },
    "pss-apparmor-annotations": {
        "metadata.annotations": (
            [{}, {ANNOTATION: ""}, {ANNOTATION: "runtime/default"}, {ANNOTATION: "localhost/p"}, {"a": "unconfined"}],
            [{ANNOTATION: "unconfined"}, {ANNOTATION: "localhost"}, {ANNOTATION.replace("/c", "/gone"): "bogus"}],
        )
    },
    **{name: IN_CONTAINERS[name] for name in ("pss-apparmor", "pss-host-process", "pss-selinux", "pss-user")},
    "pss-non-root": {"securityContext.runAsNonRoot": ([True], [ABSENT, False])},
    "pss-seccomp": {
        "securityContext.seccompProfile": (
            [profile("RuntimeDefault"), profile("Localhost")],
            [ABSENT, profile("Unconfined")],
        )
    },
}
"""The same, by path in the pod's specification; `metadata.annotations` are the pod's."""

HOOKS = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop")
HTTP, TCP = {"httpGet": {"port": 80, "path": "/"}}, {"tcpSocket": {"port": 80}}
ELSEWHERE = ({"httpGet": {"port": 80, "host": "10.0.0.1"}}, {"tcpSocket": {"port": 80, "host": "10.0.0.1"}})
OWN = {"c.securityContext.runAsNonRoot": True, "c.securityContext.seccompProfile": profile("RuntimeDefault")}


def cases() -> Iterator[Case]:
    """Every case."""
    for policy, paths in IN_POD.items():
        for path, values in paths.items():
            yield from _of(policy, path, values, "containers")
    for policy, paths in IN_CONTAINERS.items():
        for path, values in paths.items():
            for place in PLACES:
                yield from _of(policy, f"c.{path}", values, place)
    yield from _of_releases()
    yield from _of_both()


def _of(policy: str, path: str, values: tuple[list[Any], list[Any]], place: str) -> Iterator[Case]:
    for broken, found in zip((False, True), values, strict=True):
        for value in found:
            shown = "absent" if value is ABSENT else value
            yield Case(f"{path} of {place}: {shown}", policy, changed({path: value}, place), broken)


def _between(policy: str, name: str, pod: dict[str, Any], *, broken_from: int = 0, broken_until: int = 0) -> list[Case]:
    """A pod that is broken from a release on, or until one."""
    turn = broken_from or broken_until
    before, after = range(RELEASES.start, turn), range(turn, RELEASES.stop)
    return [
        Case(f"{name} before 1.{turn}", policy, pod, bool(broken_until), before),
        Case(f"{name} from 1.{turn}", policy, pod, bool(broken_from), after),
    ]


def _of_releases() -> Iterator[Case]:
    """What a release changed."""
    for name in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
        yield from _between("pss-sysctls", name, changed({"securityContext.sysctls": sysctl(name)}), broken_until=32)
    image = changed({"volumes": volume("image", reference="r")})
    yield from _between("pss-volumes", "an image as a volume", image, broken_until=33)
    for place in PLACES:
        engine = changed({"c.securityContext.seLinuxOptions": {"type": "container_engine_t"}}, place)
        yield from _between("pss-selinux", f"container_engine_t of {place}", engine, broken_until=31)
        for hook in HOOKS:
            for ask in (HTTP, TCP):
                yield _accepted(f"{hook} of {place}: {ask}", "pss-probe-hosts", {f"c.{hook}": ask}, place)
            for ask in ELSEWHERE:
                pod = changed({f"c.{hook}": ask}, place)
                yield from _between("pss-probe-hosts", f"{hook} of {place}: {ask}", pod, broken_from=34)
    apart = {"hostUsers": False}
    root = {"securityContext.runAsUser": 0, "c.securityContext.runAsUser": 0}
    yield from _between("pss-user", "user 0 in a user namespace", changed(apart | root), broken_until=35)
    unsaid = changed(apart | {"securityContext.runAsNonRoot": ABSENT})
    yield from _between("pss-non-root", "no word of root in a user namespace", unsaid, broken_until=35)
    unmasked = changed(apart | {"c.securityContext.procMount": "Unmasked"})
    yield Case("/proc in a user namespace", "pss-proc", unmasked, broken=True)
    together = changed({"hostUsers": True} | root)
    yield Case("user 0 in the node's user namespace", "pss-user", together, broken=True)


def _accepted(name: str, policy: str, changes: dict[str, Any], place: str = "containers") -> Case:
    return Case(name, policy, changed(changes, place), broken=False)


def _refused(name: str, policy: str, changes: dict[str, Any], place: str = "containers") -> Case:
    return Case(name, policy, changed(changes, place), broken=True)


def _of_both() -> Iterator[Case]:
    """What a pod and its containers say together; and pods of Windows, of which Linux' controls are not asked."""
    for key, policy, bad in (
        ("runAsNonRoot", "pss-non-root", False),
        ("seccompProfile", "pss-seccomp", profile("Unconfined")),
    ):
        own = {name: value for name, value in OWN.items() if key in name}
        unsaid = {f"securityContext.{key}": ABSENT} | own
        yield _accepted(f"{key} of the container alone", policy, unsaid)
        yield _refused(f"{key} of the pod is wrong", policy, own | {f"securityContext.{key}": bad})
        yield _refused(f"{key} of one container of two", policy, unsaid, "initContainers")
    windows, linux = {"os": {"name": "windows"}}, {"os": {"name": "linux"}}
    for path, policy in (
        ("c.securityContext.capabilities", "pss-capabilities"),
        ("c.securityContext.allowPrivilegeEscalation", "pss-privilege-escalation"),
        ("securityContext.seccompProfile", "pss-seccomp"),
    ):
        yield _accepted(f"no {path} of Windows", policy, windows | {path: ABSENT})
        yield _refused(f"no {path} of Linux, which is said", policy, linux | {path: ABSENT})
    yield _refused("root of Windows", "pss-non-root", windows | {"securityContext.runAsNonRoot": ABSENT})
    yield _refused("no security context", "pss-capabilities", {"c.securityContext": ABSENT})
