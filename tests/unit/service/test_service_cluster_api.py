"""What a real API server says of rendered objects: KUBECONFIG names one, of which no nodes are needed.

Everything is asked with a server-side dry run in namespaces that the tests make and remove, so that Pod Security,
quotas and admission policies are the cluster's own. Without KUBECONFIG these tests skip, and say so.
"""

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

from piolet.service import read, rendered
from piolet.service.cluster import admission, tenancy

pytestmark = pytest.mark.skipif(
    not os.environ.get("KUBECONFIG") or not shutil.which("kubectl"),
    reason="needs a Kubernetes API: KUBECONFIG and kubectl; the schemas and policies were asked instead",
)

EXAMPLES = Path(__file__).parents[3] / "examples/04-services"
BUILT_IN = {"ConfigMap", "CronJob", "Deployment", "Ingress", "NetworkPolicy", "PersistentVolumeClaim", "Service"}
RIGHT = ("chat", "map", "mlflow", "nightly-index", "vector-store")


def kubectl(*words, objects=None):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}) if objects else None
    return subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, check=False)


def dry_run(objects):
    return kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", objects=objects)


@pytest.fixture(scope="module")
def site(platform):
    """The platform with namespaces of this test run alone, which the API server has."""
    mine = platform.model_copy(update={"namespace_prefix": f"piolet-test-{secrets.token_hex(3)}-"})
    objects = [each for each in tenancy.objects(mine, "climate") if each["kind"] in {"Namespace", "LimitRange"}]
    made = kubectl("apply", "--filename=-", objects=objects)
    assert made.returncode == 0, made.stderr
    yield mine
    kubectl("delete", "namespace", mine.namespace("climate"), "--wait=false")


@pytest.mark.parametrize("example", RIGHT)
def test_the_api_takes_what_is_rendered(site, example):
    file = read(EXAMPLES / example)
    objects = [each for each in rendered(file.service, site, file.contents).objects if each["kind"] in BUILT_IN]
    done = dry_run(objects)
    assert done.returncode == 0, done.stderr
    assert "would violate PodSecurity" not in done.stderr


@pytest.mark.parametrize("example", RIGHT)
def test_pod_security_takes_the_pods(site, example):
    file = read(EXAMPLES / example)
    for each in rendered(file.service, site, file.contents).objects:
        if each["kind"] in {"Deployment", "StatefulSet"}:
            template = each["spec"]["template"]
            metadata = {"name": f"{example}-pod", "namespace": site.namespace("climate")} | template["metadata"]
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
            done = dry_run([pod])
            assert done.returncode == 0, done.stderr


def test_pod_security_refuses_what_the_desk_refuses(site):
    file = read(EXAMPLES / "root-everywhere")
    for each in rendered(file.service, site, file.contents).objects:
        if each["kind"] == "Deployment":
            template = each["spec"]["template"]
            metadata = {"name": "root", "namespace": site.namespace("climate")} | template["metadata"]
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
            assert "violates PodSecurity" in dry_run([pod]).stderr


def test_the_api_takes_everything_of_the_operators(site):
    done = dry_run([*tenancy.objects(site, "climate"), *admission.objects(site)])
    assert done.returncode == 0, done.stderr
