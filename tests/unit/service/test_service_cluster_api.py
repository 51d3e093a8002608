"""What a real API server says of rendered objects: KUBECONFIG names one, of which no nodes are needed.

Everything is asked with a server-side dry run in a namespace that the tests make and remove, so that Pod Security,
quotas and admission policies are the cluster's own, of its own release. Without KUBECONFIG these tests skip and say so,
but for the first: what they would send is valid by the strict schemas.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from pod_security import POD, cases
from service_schemas import VERSIONS, problems

from piolet.service import read, rendered
from piolet.service.cluster import admission, tenancy

with_api = pytest.mark.skipif(
    not os.environ.get("KUBECONFIG") or not shutil.which("kubectl"),
    reason="needs a Kubernetes API: KUBECONFIG and kubectl; the schemas and policies were asked instead",
)

EXAMPLES = Path(__file__).parents[3] / "examples/04-services"
BUILT_IN = {
    *("ConfigMap", "CronJob", "Deployment", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy"),
    *("PersistentVolumeClaim", "PodDisruptionBudget", "Service", "StatefulSet"),
}
RIGHT = ("chat", "map", "mlflow", "nightly-index", "vector-store")


def objects_of(example, site):
    """The objects of an example that an API server without custom resources knows."""
    file = read(EXAMPLES / example)
    return [each for each in rendered(file.service, site, file.contents).objects if each["kind"] in BUILT_IN]


def pods_of(example, site):
    """The pods that the workloads of an example would make, a StatefulSet with the claims of its own."""
    for each in objects_of(example, site):
        if each["kind"] in {"Deployment", "StatefulSet"}:
            spec, template = each["spec"], each["spec"]["template"]
            metadata = {"name": f"{example}-pod", "namespace": site.namespace("climate")} | template["metadata"]
            names = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])]
            claims = [{"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}} for name in names]
            pod = template["spec"] | {"volumes": [*template["spec"].get("volumes", []), *claims]}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def namespace_of(site):
    return [each for each in tenancy.objects(site, "climate") if each["kind"] in {"Namespace", "LimitRange"}]


def pods_of_controls(site):
    """The pods of the table, in the namespace of the tests, with whether Pod Security refuses them in this release."""
    for case in cases():
        if case.creatable and site.cluster.release in case.releases:
            yield case, case.pod | {"metadata": case.pod["metadata"] | {"namespace": site.namespace("climate")}}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_api_would_be_asked_is_valid(platform, version):
    objects = [*namespace_of(platform), *tenancy.objects(platform, "climate"), *admission.objects(platform), POD]
    for example in (*RIGHT, "root-everywhere"):
        objects += [*objects_of(example, platform), *pods_of(example, platform)]
    assert {each["kind"] for each in objects} > BUILT_IN | {"Pod", "ValidatingAdmissionPolicy", "ResourceQuota"}
    assert [said for each in objects for said in problems(each, version)] == []
    cluster = platform.cluster.model_copy(update={"version": version})
    assert len(list(pods_of_controls(platform.model_copy(update={"cluster": cluster})))) > 200


def kubectl(*words, objects=None):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}) if objects else None
    return subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, check=False)


def dry_run(objects):
    return kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", objects=objects)


@pytest.fixture(scope="module")
def site(platform):
    """The platform of the server's release, with a namespace of this test run alone, which the API server has."""
    server = json.loads(kubectl("version", "--output=json").stdout)["serverVersion"]
    cluster = platform.cluster.model_copy(update={"version": f"{server['major']}.{server['minor'].rstrip('+')}"})
    prefix = f"piolet-test-{secrets.token_hex(3)}-"
    mine = platform.model_copy(update={"namespace_prefix": prefix, "cluster": cluster})
    made = kubectl("apply", "--filename=-", objects=namespace_of(mine))
    assert made.returncode == 0, made.stderr
    while kubectl("get", "serviceaccount", "default", f"--namespace={mine.namespace('climate')}").returncode:
        time.sleep(0.2)  # the controller manager makes it, and no pod is taken without it
    yield mine
    kubectl("delete", "namespace", mine.namespace("climate"), "--wait=false")


@with_api
@pytest.mark.parametrize("example", RIGHT)
def test_the_api_takes_what_is_rendered_and_its_pods(site, example):
    for objects in (objects_of(example, site), list(pods_of(example, site))):
        done = dry_run(objects) if objects else None
        assert done is None or done.returncode == 0, done.stderr
        assert done is None or "would violate PodSecurity" not in done.stderr


@with_api
def test_pod_security_refuses_what_the_desk_refuses(site):
    assert "violates PodSecurity" in dry_run(pods_of("root-everywhere", site)).stderr
    for case, pod in pods_of_controls(site):
        said = dry_run([pod]).stderr
        assert ("violates PodSecurity" in said) is case.broken, (case.name, said)


@with_api
def test_the_api_takes_everything_of_the_operators(site):
    done = dry_run([*tenancy.objects(site, "climate"), *admission.objects(site)])
    assert done.returncode == 0, done.stderr
