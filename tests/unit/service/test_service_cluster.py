"""What operators apply: valid for every release, and the same policies in the cluster as on the desk."""

from datetime import date
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from service_admission import asked_by_the_cluster
from service_schemas import CUSTOM, VERSIONS, defined_problems, has_definitions, problems

from piolet.cli.main import command
from piolet.core.errors import UsageError
from piolet.service import read, rendered
from piolet.service.cluster import admission, tenancy, tree
from piolet.service.platform import Exposure
from piolet.service.policies import KINDS, policies, violations

EXAMPLES = Path(__file__).parents[3] / "examples/04-services"
TODAY = date(2027, 1, 15)


@pytest.fixture(scope="module")
def files(platform):
    return {name: list(yaml.safe_load_all(text)) for name, text in tree.rendered(platform).items()}


def test_every_object_is_valid_for_every_release(files):
    objects = [each for name, found in files.items() if not name.startswith("rke2/") for each in found]
    assert len(objects) > 80
    assert [said for version in VERSIONS for each in objects for said in problems(each, version)] == []


@pytest.mark.skipif(
    not has_definitions, reason="needs node and npm's packages: scripts/setup test; our schemas were asked"
)
def test_custom_objects_are_right_by_their_own_definitions(files, platform):
    way = {"project": Exposure(kind="httproute", class_name="public", namespace="gateways")}
    by_route = platform.model_copy(update={"exposure": way})
    objects = list(files["argocd.yaml"])
    for path in sorted(EXAMPLES.glob("*/service.toml")):
        file = read(path)
        objects += rendered(file.service, by_route, file.contents).objects
    custom = [each for each in objects if each["kind"] in CUSTOM]
    assert {each["kind"] for each in custom} == set(CUSTOM)
    assert [said for said in defined_problems(custom) if said] == []
    spoilt_ones = [
        each | {"spec": {"sourceRepos": 1, "hostnames": ["A"], "endpoints": [{}], "data": {}}} for each in custom
    ]
    assert all(defined_problems(spoilt_ones))


def test_the_same_platform_gives_the_same_bytes(platform):
    assert tree.rendered(platform) == tree.rendered(platform.model_copy())


def test_a_project_has_one_source_one_namespace_and_nothing_of_the_cluster(files):
    (project,) = (each for each in files["argocd.yaml"] if each["kind"] == "AppProject" and _name(each) == "climate")
    spec = project["spec"]
    assert spec["sourceRepos"] == ["https://git.example.org/platform/services.git"]
    assert [each["namespace"] for each in spec["destinations"]] == ["svc-climate"]
    assert spec["clusterResourceWhitelist"] == []
    assert {each["kind"] for each in spec["namespaceResourceWhitelist"]} == set(KINDS)
    (applications,) = (each for each in files["argocd.yaml"] if _name(each) == "project-climate")
    assert applications["spec"]["generators"][0]["git"]["directories"] == [{"path": "projects/climate/*"}]
    assert applications["spec"]["template"]["spec"]["project"] == "climate"


def test_a_namespace_is_restricted_denied_by_default_and_bounded(files):
    objects = {each["kind"]: each for each in files["projects/climate.yaml"]}
    labels = objects["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert "ingress" not in objects["NetworkPolicy"]["spec"]
    assert objects["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    hard = objects["ResourceQuota"]["spec"]["hard"]
    assert (hard["requests.nvidia.com/gpu"], hard["services.nodeports"]) == ("4", "0")
    resources = {name for rule in objects["Role"]["rules"] for name in rule["resources"]}
    assert {"ingresses", "networkpolicies", "persistentvolumeclaims", "httproutes"} < resources
    assert not resources & {"secrets", "pods", "roles", "resourcequotas", "serviceaccounts"}


def test_who_may_look_comes_from_the_groups(platform):
    climate = platform.projects["climate"].model_copy(update={"groups": ["hpc-climate"]})
    with_groups = platform.model_copy(update={"projects": {"climate": climate}})
    found = tree.rendered(with_groups)
    assert 'g, "hpc-climate", role:project-climate' in found["argocd.yaml"]
    views = [each for each in tenancy.objects(with_groups, "climate") if _name(each) == "piolet-view"]
    assert views[0]["subjects"][0]["name"] == "hpc-climate"


def test_rke2_has_the_profile_and_the_pools(files):
    assert files["rke2/server.yaml"][0]["profile"] == "cis"
    gpu = files["rke2/agent-gpu.yaml"][0]
    assert gpu["node-label"] == ["node.example.org/pool=gpu"]
    assert gpu["node-taint"] == ["nvidia.com/gpu=present:NoSchedule"]


def _name(each):
    return each["metadata"]["name"]


@pytest.mark.parametrize("project", ["climate", "genome"])
def test_the_cluster_and_the_desk_agree_on_every_policy(platform, project):
    objects = []
    for path in sorted(EXAMPLES.glob("*/service.toml")):
        file = read(path)
        objects += rendered(file.service, platform, file.contents).objects
    objects += [spoilt(each) for each in objects if each["kind"] in {"Deployment", "Service", "NetworkPolicy"}]
    in_cluster = [policy for policy in policies() if policy.id != "lease-length"]
    broken = 0
    for each in objects:
        on_desk = {found.policy.id for found in violations(each, project, platform, TODAY)}
        for policy in in_cluster:
            if policy.is_about(each["kind"]):
                assert asked_by_the_cluster(policy, platform, each, project) == (policy.id not in on_desk), policy.id
                broken += policy.id in on_desk
    assert broken > 20


def spoilt(each):
    """The object with what an edit by hand may do to it."""
    spec = each["spec"] | {"type": "NodePort", "podSelector": {}, "ingress": [{}]}
    if "template" in spec:
        pod = dict(spec["template"]["spec"])
        spec["template"] = {
            "spec": pod | {"hostNetwork": True, "securityContext": {}, "nodeName": "n", "containers": [{}]}
        }
    return each | {"spec": spec}


def test_only_the_policy_about_today_is_not_the_clusters(platform):
    names = {_name(each) for each in admission.objects(platform)}
    assert names == {f"piolet-{policy.id}" for policy in policies() if policy.id != "lease-length"}


def test_a_platform_without_a_repository_has_nothing_for_argo_cd(platform):
    with pytest.raises(UsageError, match="no repository"):
        tree.rendered(platform.model_copy(update={"gitops": None}))


def test_the_command_writes_the_tree(tmp_path):
    environment = {"PIOLET_SERVICE_PLATFORM": str(EXAMPLES / "platform.toml")}
    done = CliRunner().invoke(command, ["service", "platform", "render", "--output", str(tmp_path)], env=environment)
    assert done.exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"argocd.yaml", "policies.yaml", "projects", "rke2"}
