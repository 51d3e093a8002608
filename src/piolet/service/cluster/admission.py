"""The policies as ValidatingAdmissionPolicy objects: the same CEL that `check` and `verify` ask, asked by the cluster.

Policies about today's date are not among them: CEL in a cluster has no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from piolet.service.cluster.tenancy import DEPLOYER, group_of, resource_of
from piolet.service.platform import Platform
from piolet.service.policies import KINDS, Policy, constants, policies, used_variables, variables
from piolet.service.render.names import PROJECT, Object

_API = "admissionregistration.k8s.io/v1"
_PROJECT = f"namespaceObject.metadata.labels['{PROJECT}']"
_ASKED_BY_SOMEBODY = (
    f"request.userInfo.username == 'system:serviceaccount:' + request.namespace + ':{DEPLOYER}'"
    " || !request.userInfo.username.startsWith('system:')"
)
"""The deployer and people; what Kubernetes makes by itself of what they made is held to Pod Security."""


def objects(platform: Platform) -> Iterator[Object]:
    """Yield each policy that a cluster can ask, and its binding to the namespaces of projects."""
    for policy in policies():
        if not {"today", "latest"} & set(used_variables(policy)):
            yield _policy(policy, platform)
            yield _binding(policy)


def literal(value: Any) -> str:  # noqa: ANN401 - text, numbers, lists and maps
    """Return a value as CEL writes it: for these, as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def composed(policy: Policy, platform: Platform) -> list[dict[str, str]]:
    """Return the variables that the policy needs, as the cluster takes them: each after those that it uses."""
    known = constants(platform)
    found = []
    for name in used_variables(policy):
        text = _PROJECT if name == "project" else variables().get(name)
        found.append({"name": name, "expression": literal(known[name]) if text is None else text})
    return found


def _policy(policy: Policy, platform: Platform) -> Object:
    return {
        "apiVersion": _API,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"piolet-{policy.id}"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": list(_rules(policy))},
            "matchConditions": [{"name": "asked-by-somebody", "expression": _ASKED_BY_SOMEBODY}],
            "variables": composed(policy, platform),
            "validations": [{"expression": policy.expression, "message": f"{policy.id}: {policy.title}"}],
        },
    }


def _rules(policy: Policy) -> Iterator[Object]:
    """A policy about everything is about every resource; others about the kinds that a project may have."""
    if "*" in policy.kinds:
        yield _rule("*", ["*"], "*")
        return
    kinds: dict[str, list[str]] = {}
    for kind in policy.kinds:
        if kind in KINDS:
            kinds.setdefault(KINDS[kind], []).append(kind)
    for api, found in sorted(kinds.items()):
        yield _rule(group_of(found[0]), [resource_of(kind) for kind in found], api.rpartition("/")[2])


def _rule(group: str, resources: list[str], version: str) -> Object:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": ["CREATE", "UPDATE"],
        "resources": sorted(resources),
        "scope": "Namespaced",
    }


def _binding(policy: Policy) -> Object:
    selector = {"matchExpressions": [{"key": PROJECT, "operator": "Exists"}]}
    return {
        "apiVersion": _API,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"piolet-{policy.id}"},
        "spec": {
            "policyName": f"piolet-{policy.id}",
            "matchResources": {"namespaceSelector": selector},
            "validationActions": ["Deny", "Audit"],
        },
    }
