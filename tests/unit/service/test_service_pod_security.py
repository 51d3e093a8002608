"""Pod Security `restricted`, control by control: the desk, the cluster's policies and the schemas on the same pods."""

from __future__ import annotations

from datetime import date

import pytest
from pod_security import POD, cases
from service_admission import asked_by_the_cluster
from service_schemas import problems

from piolet.service.policies import policies, violations

TODAY = date(2027, 1, 15)
CASES = list(cases())
CONTROLS = {policy.id: policy for policy in policies() if policy.id.startswith("pss-")}


def of_release(platform, release):
    cluster = platform.cluster.model_copy(update={"version": f"1.{release}"})
    return platform.model_copy(update={"cluster": cluster})


def broken_on_the_desk(each, platform):
    return {found.policy.id for found in violations(each, "climate", platform, TODAY)} & set(CONTROLS)


def test_every_control_is_tried_both_ways():
    for broken in (False, True):
        assert {case.policy for case in CASES if case.broken is broken} == set(CONTROLS)
    assert len(CASES) > 300
    assert len({(case.name, case.policy) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("control", CONTROLS)
def test_the_desk_and_the_cluster_judge_as_each_release_does(platform, control):
    for case in (case for case in CASES if case.policy == control):
        for release in {case.releases[0], case.releases[-1]}:
            site = of_release(platform, release)
            found = broken_on_the_desk(case.pod, site)
            assert (control in found) is case.broken, (release, case)
            assert asked_by_the_cluster(CONTROLS[control], site, case.pod, "climate") is not case.broken
            assert found <= {control} or "securityContext" not in case.pod["spec"]["containers"][0], (release, case)


def test_the_pods_are_valid_so_that_an_api_server_judges_them_by_their_security_alone():
    assert [(case.name, problems(case.pod, "1.35")) for case in CASES if problems(case.pod, "1.35")] == []


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "CronJob", "Job"])
def test_templates_are_looked_into(platform, kind):
    template = {"spec": POD["spec"] | {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    each = {"kind": kind, "metadata": POD["metadata"], "spec": spec}
    assert broken_on_the_desk(each, platform) == {"pss-capabilities", "pss-privilege-escalation"}
