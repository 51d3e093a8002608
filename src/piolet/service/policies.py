"""The policies of the service plane, and asking them of objects.

They are data (`policies.toml`, `podsecurity.toml`) in CEL, the language in which Kubernetes admits objects.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from piolet.core.errors import ToolMissing
from piolet.service.platform import Platform
from piolet.service.render.names import Object

DIRECTORY = Path(__file__).parent
WORKLOADS = ("CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "StatefulSet")
KINDS = {
    "ConfigMap": "v1",
    "CronJob": "batch/v1",
    "Deployment": "apps/v1",
    "ExternalSecret": "external-secrets.io/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "Ingress": "networking.k8s.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PersistentVolumeClaim": "v1",
    "PodDisruptionBudget": "policy/v1",
    "Service": "v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "StatefulSet": "apps/v1",
}
"""Every kind that a service is rendered to, and that a project may have, with its API version."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy; see `policies.toml` for its fields."""

    id: str
    title: str
    why: str
    fix: str
    kinds: tuple[str, ...]
    keys: tuple[str, ...]
    each: str
    rule: str
    slurm: bool = False
    nested: bool = False

    @property
    def expression(self) -> str:
        """The policy in one expression, which is true of an object that keeps it."""
        if self.nested:
            return f"({self.each}).all(inner, inner.all(it, {self.rule}))"
        return f"({self.each}).all(it, {self.rule})"

    def is_about(self, kind: str) -> bool:
        """Tell whether the policy is about objects of `kind`."""
        return "*" in self.kinds or kind in self.kinds


@dataclass(frozen=True, slots=True)
class Violation:
    """A policy that an object breaks: `element` is what of it does; `why` and `fix` are for people."""

    policy: Policy
    kind: str
    name: str
    element: Any
    fix: str


@cache
def _source(name: str) -> dict[str, Any]:
    return tomllib.loads((DIRECTORY / name).read_text("utf-8"))


@cache
def policies() -> tuple[Policy, ...]:
    """Return every policy, Pod Security last."""
    security = [_SECURITY | each for each in _source("podsecurity.toml")["policy"]]
    return tuple(_policy(each) for each in [*_source("policies.toml")["policy"], *security])


_SECURITY = {
    "why": "the cluster refuses such pods (Pod Security, restricted): they could reach their node",
    "fix": "let Piolet render it",
    "kinds": ["workload"],
    "keys": ["name"],
}


def _policy(table: dict[str, Any]) -> Policy:
    kinds = [kind for each in table["kinds"] for kind in (WORKLOADS if each == "workload" else (each,))]
    return Policy(**table | {"kinds": tuple(kinds), "keys": tuple(table["keys"])})


def variables() -> dict[str, str]:
    """Return the CEL variables by name, each after those that it uses."""
    found: dict[str, str] = _source("policies.toml")["variables"]
    return found


def constants(platform: Platform) -> dict[str, Any]:
    """Return the variables that are a site's constants: text, numbers, lists and maps of one kind, as in a cluster."""
    ways = [way.namespace for way in platform.exposure.values()]
    pools = sorted(platform.pools.items())
    secrets = _source("policies.toml")["secrets"]
    return {
        "kinds": KINDS,
        "secret_names": secrets["names"],
        "secret_values": secrets["values"],
        "site_circles": sorted(platform.exposure),
        "site_domain": platform.domain,
        "site_gpu_sources": sorted({platform.gateway_namespace, platform.monitoring_namespace}),
        "site_lease_required": platform.lease_required,
        "site_most_replicas": platform.most_replicas,
        "site_namespace_prefix": platform.namespace_prefix,
        "site_pool_labels": {name: dict(pool.labels) for name, pool in pools},
        "site_pool_taints": {name: [taint.key for taint in pool.taints] for name, pool in pools},
        "site_release": platform.cluster.release,
        "site_registries": [registry.rstrip("/") for registry in platform.registries],
        "site_secret_store": platform.secret_store,
        "site_sources": sorted({*ways, platform.gateway_namespace, platform.monitoring_namespace}),
        "site_storage_classes": sorted({kind.storage_class for kind in platform.storage.values()}),
    }


def violations(
    each: Object, project: str, platform: Platform, today: date, *, slurm: bool = False
) -> Iterator[Violation]:
    """Yield what `each`, an object of `project`, breaks: of all policies, or with `slurm` of those that hold there.

    A rule that cannot be evaluated is broken.
    """
    facts = _cel().Context(variables=_facts(each, project, platform, today))
    for policy in policies():
        if policy.is_about(each["kind"]) and (policy.slurm or not slurm):
            for element in _broken(policy, facts):
                name = each.get("metadata", {}).get("name", "")
                yield Violation(policy, each["kind"], name, element, _filled(policy.fix, project, platform, today))


def _facts(each: Object, project: str, platform: Platform, today: date) -> dict[str, Any]:
    """Return the object, and all variables but those that have no value for it."""
    known: dict[str, Any] = constants(platform) | {
        "project": project,
        "today": today.isoformat(),
        "latest": (today + timedelta(days=platform.lease_days)).isoformat(),
    }
    for name, expression in variables().items():
        used = {other: known[other] for other in _named(expression) if other in known}
        value = _evaluated(expression, {"object": each, "variables": used})
        if not isinstance(value, Exception):
            known[name] = value
    return {"object": each, "variables": known}


@cache
def used_variables(policy: Policy) -> tuple[str, ...]:
    """Return the variables and constants that a policy uses, directly or not, each after those that it uses itself."""
    wanted: set[str] = set()
    texts = [policy.each, policy.rule]
    while texts:
        found = _named(texts.pop()) - wanted
        wanted |= found
        texts += [variables()[name] for name in found if name in variables()]
    return tuple(sorted(wanted - set(variables())) + [name for name in variables() if name in wanted])


@cache
def _named(expression: str) -> frozenset[str]:
    """Return the variables that an expression names."""
    return frozenset(re.findall(r"variables\.(\w+)", expression))


def _broken(policy: Policy, facts: Any) -> Iterator[Any]:  # noqa: ANN401 - a context of cel, which has no types
    """Yield the elements that break the policy, one by one only where the whole is not right."""
    if _evaluated(policy.expression, facts) is True:
        return
    broken = False
    elements = _evaluated(policy.each, facts)
    if not isinstance(elements, Exception):
        for element in [inner for each in elements for inner in each] if policy.nested else elements:
            facts.add_variable("it", element)
            if _evaluated(policy.rule, facts) is not True:
                broken = True
                yield element
    if not broken:
        yield f"cannot be evaluated: {elements}"


def _evaluated(expression: str, facts: Any) -> Any:  # noqa: ANN401 - as above
    try:
        return _compiled(expression).execute(facts)
    except (ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:  # what cel raises for an evaluation
        return error


@cache
def _compiled(expression: str) -> Any:  # noqa: ANN401 - a program of cel, which has no types
    return _cel().compile(expression)


def _cel() -> Any:  # noqa: ANN401 - it has no types
    try:
        import cel  # noqa: PLC0415 - slow to import, and only checks need it
    except ImportError as error:
        raise ToolMissing("the CEL evaluator", remedy="install it with: pip install 'piolet[service]'") from error
    return cel


def _filled(fix: str, project: str, platform: Platform, today: date) -> str:
    words: Mapping[str, object] = {
        "registries": ", ".join(platform.registries),
        "pools": ", ".join(sorted(platform.pools)),
        "circles": ", ".join(sorted(platform.exposure)),
        "storage": ", ".join(sorted(platform.storage)) or "none here",
        "lease_days": platform.lease_days,
        "soon": today + timedelta(days=min(90, platform.lease_days)),
        "most_replicas": platform.most_replicas,
        "project": project,
        "project_domain": platform.project_domain(project),
    }
    return re.sub(r"\{(\w+)\}", lambda word: str(words.get(word[1], word[0])), fix)
