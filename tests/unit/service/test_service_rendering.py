"""The objects of a service: what is in them, that they are stable, and where they go."""

import re
from datetime import date

import pytest
import yaml
from service_schemas import VERSIONS, problems

from piolet.cli.main import run_command
from piolet.core.errors import ConfigError
from piolet.service import platform as platforms
from piolet.service import read, rendered
from piolet.service.starting import TEMPLATES, Template, new


def test_a_gpu_service_hears_the_gateway_alone(desk, right):
    text = right.replace("port = 8080", 'port = 8080\nrun_on = "gpu"\nexpose = "institution"')
    objects = desk.objects(text + "resources = { gpus = 2 }\n")
    assert "Ingress" not in objects
    sources = objects["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert sources == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "inference-gateway"}}}]
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"}
    ]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}} in pod["volumes"]


def test_a_service_on_the_internet_has_tls_and_a_login(desk, right):
    objects = desk.objects(f'expose = "internet"\n{right}')
    ingress = objects["Ingress"]
    assert ingress["spec"]["tls"] == [{"hosts": ["web.climate.services.example.org"], "secretName": "web-tls"}]
    assert ingress["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "letsencrypt"
    assert "nginx.ingress.kubernetes.io/auth-url" in ingress["metadata"]["annotations"]
    assert desk.check(f'expose = "internet"\n{right}') == []


def test_a_site_with_the_gateway_api_gets_routes(desk, right):
    way = platforms.Exposure(kind="httproute", class_name="public", namespace="gateways")
    desk.platform = desk.platform.model_copy(update={"exposure": {"project": way}})
    route = desk.objects(f'expose = "project"\n{right}')["HTTPRoute"]
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    assert problems(route, VERSIONS[0]) == []
    assert desk.check(f'expose = "project"\n{right}') == []


def test_storage_of_one_node_makes_a_stateful_set(desk, right):
    volume = '[storage.data]\npath = "/data"\nsize = "10GiB"\nkind = "{}"\n'
    shared = desk.objects(right + volume.format("shared"))
    assert shared["PersistentVolumeClaim"]["metadata"]["name"] == "web-data"
    assert shared["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    own = desk.objects(right + volume.format("fast"))
    assert own["StatefulSet"]["spec"]["volumeClaimTemplates"][0]["metadata"] == {"name": "data-data"}
    assert "PersistentVolumeClaim" not in own


def test_replicas_survive_a_drained_node(desk, right):
    objects = desk.objects(f"{right}replicas = 3\n")
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    spread = objects["Deployment"]["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread[0]["topologyKey"] == "kubernetes.io/hostname"
    scaled = desk.objects(f"{right}replicas = {{ min = 2, max = 4 }}\n")
    assert scaled["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 2
    assert "replicas" not in scaled["Deployment"]["spec"]  # Argo CD and the autoscaler would undo one another's


def test_a_changed_file_starts_pods_anew(desk, right):
    names = []
    for content in ("a: 1\n", "a: 2\n"):
        (desk.directory / "conf").write_text(content)
        names.append(desk.objects(f'{right}[files]\n"/etc/conf" = "conf"\n')["ConfigMap"]["metadata"]["name"])
    assert names[0] != names[1]


def test_a_dollar_sign_stays_one(desk, right):
    objects = desk.objects(f'{right}[env]\nA = "$(B) $C"\n')
    assert objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"][1:] == [
        {"name": "A", "value": "$$(B) $C"}
    ]


def test_files_are_stable_and_hold_everything(desk, right):
    made = desk.render(f"{right}replicas = 2\n")
    files = made.files()
    assert list(files) == sorted(files)
    assert desk.render(f"{right}replicas = 2\n").files() == files
    objects = [each for text in files.values() for each in yaml.safe_load_all(text)]
    assert sorted(each["kind"] for each in objects) == sorted(each["kind"] for each in made.objects)


@pytest.mark.parametrize("template", Template)
def test_every_template_is_right(tmp_path, platform, template, desk):
    path = tmp_path / template / "service.toml"
    image = f"ghcr.io/example/x@sha256:{'a' * 64}"
    new(template, path, name="it", project="climate", image=image, expires=date(2027, 6, 1))
    file = read(path)
    assert desk.check(path.read_text()) == []
    objects = rendered(file.service, platform, {}).objects
    assert [said for version in VERSIONS for each in objects for said in problems(each, version)] == []


def test_every_template_is_a_file():
    assert {path.stem for path in TEMPLATES.glob("*.toml")} == {template.value for template in Template}


def test_a_template_is_asked_for_by_the_name_of_its_file(tmp_path):
    path = tmp_path / "service.toml"
    words = ["service", "new", "label-studio", str(path), "--project", "climate", "--image", "ghcr.io/example/x:1"]
    assert run_command(words) == 0
    assert read(path).service.name == "label-studio"


def test_the_schemas_refuse_what_is_wrong(desk, right):
    deployment = desk.objects(right)["Deployment"]
    deployment["spec"]["template"]["spec"]["hostNetwrok"] = True
    assert "hostNetwrok" in problems(deployment, "1.33")[0]
    assert problems({"kind": "HTTPRoute", "spec": {"hostnames": []}}, "1.33")


def test_the_port_is_a_variable_and_slurm_has_keys_of_its_own(desk, right):
    container = desk.objects(right)["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "PORT", "value": "8080"}]
    with pytest.raises(ConfigError, match=r"\[slurm\] has no effect"):
        desk.read(f"{right}[slurm]\nnodes = 1\n")
    with pytest.raises(ConfigError, match="image is missing"):
        desk.read(re.sub("image = .*\n", "", right))
