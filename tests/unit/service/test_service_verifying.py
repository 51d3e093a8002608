"""`verify`: the manifests of a repository, rendered or written by hand."""

import re
from datetime import date
from pathlib import Path

import pytest

from piolet.service import read, rendered
from piolet.service.verifying import verified

EXAMPLES = Path(__file__).parents[3] / "examples/04-services"
TODAY = date(2027, 1, 15)


@pytest.fixture
def repository(tmp_path, platform):
    """A repository with the service `chat`, as rendered."""
    file = read(EXAMPLES / "chat")
    place = tmp_path / "climate/chat"
    place.mkdir(parents=True)
    for name, text in rendered(file.service, platform, file.contents).files().items():
        (place / name).write_text(text)
    return tmp_path


def broken(repository, platform):
    return {breach.policy for breach in verified(repository, platform, TODAY)[1]}


def test_what_is_rendered_is_right(repository, platform):
    count, found = verified(repository, platform, TODAY)
    assert (count, found) == (len(list(repository.rglob("*.yaml"))), [])


@pytest.mark.parametrize(
    ("old", "new", "policy"),
    [
        ("namespace: svc-climate", "namespace: svc-genome", "own-namespace"),
        ("readinessProbe", "readynessProbe", "probes"),
        ("kind: Deployment", "kind: DaemonSet", "kinds"),
        ("apiVersion: apps/v1", "apiVersion: serving.knative.dev/v1", "kinds"),
        ("runAsNonRoot: true", "runAsNonRoot: false", "pss-non-root"),
        ("automountServiceAccountToken: false", "automountServiceAccountToken: true", "no-token"),
        ("nodeSelector:", "nodeName: gpu-1\n      nodeSelector:", "placement"),
        ("piolet/expires:", "piolet/expired:", "lease"),
        ("@sha256:", "@sha512:", "image-digest"),
        ("emptyDir:", "hostPath: {path: /}\n          emptyDir: null\n          unused:", "pss-volumes"),
    ],
)
def test_an_edit_by_hand_is_refused(repository, platform, old, new, policy):
    path = repository / "climate/chat/deployment.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert policy in broken(repository, platform)


def test_a_date_is_text_as_for_the_cluster(repository, platform):
    path = repository / "climate/chat/deployment.yaml"
    unquoted, count = re.subn(r'piolet/expires: "(.*)"', r"piolet/expires: \1", path.read_text())
    assert count == 1
    path.write_text(unquoted)
    assert broken(repository, platform) == set()


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "- a",
        "just text",
        "kind: Service",
        "kind: {}\nmetadata: {}",
        "\x00",
        "a: 1\n" * 2 + "? [",
        "kind: !!set {a}",
    ],
)
def test_what_is_no_object_is_refused(repository, platform, text):
    (repository / "climate/chat/more.yml").write_text(text)
    assert broken(repository, platform) == {"readable"}


def test_lists_secrets_and_strange_projects_are_refused(repository, platform):
    (repository / "climate/list.json").write_text('{"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []}')
    assert broken(repository, platform) == {"kinds", "own-namespace"}
    (repository / "climate/list.json").unlink()
    (repository / "climate").rename(repository / "climat")
    assert broken(repository, platform) == {"project"}


@pytest.mark.parametrize(
    ("metadata", "spec"), [("[]", "[]"), ("{name: 1}", "7"), ("{}", "null"), ("{labels: 3}", "{template: x}")]
)
@pytest.mark.parametrize("kind", ["Deployment", "Ingress", "NetworkPolicy", "CronJob"])
def test_garbage_is_refused_and_crashes_nothing(repository, platform, kind, metadata, spec):
    (repository / "climate/x.yaml").write_text(f"kind: {kind}\nmetadata: {metadata}\nspec: {spec}\n")
    assert broken(repository, platform)
