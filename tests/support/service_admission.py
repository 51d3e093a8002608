"""What a cluster's admission policies, as they are rendered, say of an object."""

from __future__ import annotations

from functools import cache
from typing import Any

import cel

from piolet.service.cluster import admission
from piolet.service.platform import Platform
from piolet.service.policies import Policy

compiled = cache(cel.compile)


def asked_by_the_cluster(policy: Policy, platform: Platform, each: dict[str, Any], project: str) -> bool:
    """What the rendered expression says of an object; an error is a refusal, as `failurePolicy: Fail` makes it."""
    known: dict[str, Any] = {}
    namespace = {"metadata": {"labels": {"piolet/project": project}}}
    facts = {"object": each, "namespaceObject": namespace, "variables": known}
    try:
        for variable in admission.composed(policy, platform):
            known[variable["name"]] = compiled(variable["expression"]).execute(facts)
        return compiled(policy.expression).execute(facts) is True
    except (ValueError, KeyError, TypeError, RuntimeError, IndexError):
        return False
