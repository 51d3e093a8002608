"""The namespace of a project and what bounds it: Pod Security, quota, limits, network, and who may do what there.

Nobody but the project's deployer, the account as which Argo CD applies its manifests, writes there; people look.
"""

from __future__ import annotations

from collections.abc import Iterator

from piolet.service import quantities
from piolet.service.platform import Platform, Project
from piolet.service.policies import KINDS
from piolet.service.render.names import PROJECT, Object

DEPLOYER = "piolet-deployer"
LEVELS = ("enforce", "audit", "warn")


def group_of(kind: str) -> str:
    """Return the API group of a kind; the core group has none."""
    group, _, version = KINDS[kind].rpartition("/")
    return group if version else ""


def resource_of(kind: str) -> str:
    """Return a kind as the API names it in rules: ``networkpolicies`` of NetworkPolicy."""
    word = kind.lower()
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith("s") else f"{word}s"


def objects(platform: Platform, name: str) -> Iterator[Object]:
    """Yield all objects of a project that are the operators'."""
    project = platform.projects[name]
    namespace = platform.namespace(name)
    yield _namespace(platform, name)
    yield _made("v1", "ResourceQuota", "project", namespace, spec={"hard": _quota(platform, project)})
    yield _made("v1", "LimitRange", "defaults", namespace, spec={"limits": [_DEFAULTS]})
    yield _made("networking.k8s.io/v1", "NetworkPolicy", "default-deny", namespace, spec=_network(platform))
    yield _made("v1", "ServiceAccount", DEPLOYER, namespace, automountServiceAccountToken=False)
    yield _made("rbac.authorization.k8s.io/v1", "Role", DEPLOYER, namespace, rules=list(_rules()))
    account = {"kind": "ServiceAccount", "name": DEPLOYER, "namespace": namespace}
    yield _binding(DEPLOYER, namespace, [account], kind="Role", role=DEPLOYER)
    if project.groups:
        people = [{"kind": "Group", "name": group, "apiGroup": "rbac.authorization.k8s.io"} for group in project.groups]
        yield _binding("piolet-view", namespace, people, kind="ClusterRole", role="view")


def _made(api: str, kind: str, name: str, namespace: str, **rest: object) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}} | rest


def _namespace(platform: Platform, name: str) -> Object:
    """Pods are held to `restricted` of the cluster's own release, so that an upgrade refuses nothing unforeseen."""
    labels = {PROJECT: name}
    for level in LEVELS:
        labels[f"pod-security.kubernetes.io/{level}"] = "restricted"
        labels[f"pod-security.kubernetes.io/{level}-version"] = f"v{platform.cluster.version}"
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": platform.namespace(name), "labels": labels},
    }


_DEFAULTS = {
    "type": "Container",
    "default": {"memory": "512Mi"},
    "defaultRequest": {"cpu": "100m", "memory": "256Mi"},
}


def _quota(platform: Platform, project: Project) -> Object:
    """The same numbers that `check` compares with; services of the kinds that leave the cluster are none at all."""
    gpus = {f"requests.{pool.gpu_resource}": str(project.gpus) for pool in platform.pools.values()}
    return {
        "requests.cpu": quantities.processors(project.cpus),
        "requests.memory": quantities.memory(project.memory),
        "limits.memory": quantities.memory(project.memory),
        "requests.storage": quantities.memory(project.storage),
        **gpus,
        "services.loadbalancers": "0",
        "services.nodeports": "0",
    }


def _network(platform: Platform) -> Object:
    """Nothing comes in but what a service's own policy lets in; pods reach names, their project, and what is listed."""
    dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    names = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    egress: list[Object] = [{"to": [names], "ports": dns}, {"to": [{"podSelector": {}}]}]
    if platform.cluster.egress:
        egress.append({"to": [{"ipBlock": {"cidr": cidr}} for cidr in platform.cluster.egress]})
    return {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": egress}


def _rules() -> Iterator[Object]:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    groups: dict[str, list[str]] = {}
    for kind in KINDS:
        groups.setdefault(group_of(kind), []).append(resource_of(kind))
    for group, resources in sorted(groups.items()):
        yield {"apiGroups": [group], "resources": sorted(resources), "verbs": verbs}


def _binding(name: str, namespace: str, subjects: list[Object], *, kind: str, role: str) -> Object:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    return _made("rbac.authorization.k8s.io/v1", "RoleBinding", name, namespace, roleRef=reference, subjects=subjects)
