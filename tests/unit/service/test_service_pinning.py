"""`piolet service pin` against a real registry."""

import base64
import json
import shutil

import oci_images
import pytest
from click.testing import CliRunner

from piolet.cli.main import command
from piolet.core.errors import ConfigError, PioletError


@pytest.fixture(scope="session")
def pushed(tmp_path_factory):
    """The host of a registry, and the digest of its image team/web:1, made for two architectures."""
    if not shutil.which("docker-registry") or not shutil.which("skopeo"):
        pytest.skip("needs docker-registry and skopeo")
    layers = [oci_images.layer(oci_images.entry("etc/"))]
    made = oci_images.layout(tmp_path_factory.mktemp("image") / "layout", layers)
    for registry in oci_images.serve(tmp_path_factory.mktemp("registry")):
        registry.push(made, "team/web:1")
        yield registry.host, json.loads((made / "index.json").read_text())["manifests"][0]["digest"]


@pytest.fixture
def home(pushed, tmp_path, monkeypatch):
    """A user who is logged in at the registry."""
    pair = base64.b64encode(f"{oci_images.USER}:{oci_images.PASSWORD}".encode()).decode()
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {pushed[0]: {"auth": pair}}}))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def written(directory, image):
    path = directory / "service.toml"
    path.write_text(f'# mine\nname = "web"\nproject = "climate"\nimage = {image}\nport = 8080\n')
    return path


def pin(*arguments):
    return CliRunner().invoke(command, ["service", "pin", *map(str, arguments)])


def test_a_tag_becomes_the_digest_of_all_architectures_and_the_rest_of_the_file_stays(pushed, home):
    host, digest = pushed
    path = written(home, f"'{host}/team/web:1'  # the newest")
    before = path.read_text()
    done = pin(path)
    assert done.output == f"{host}/team/web:1 is {digest}\n"
    assert path.read_text() == before.replace(f"'{host}/team/web:1'", f'"{host}/team/web@{digest}"')
    assert pin(path, "--image", f"{host}/team/web:1").exit_code == 0


def test_what_the_registry_does_not_have_leaves_the_file_as_it_is(pushed, home):
    path = written(home, f'"{pushed[0]}/team/web:2"')
    before = path.read_text()
    done = pin(path)
    assert isinstance(done.exception, PioletError)
    assert "no such image" in str(done.exception)
    assert path.read_text() == before


def test_what_is_no_name_of_an_image_is_an_error_with_its_line(home):
    path = written(home, '"a//b"')
    done = pin(path)
    assert isinstance(done.exception, ConfigError)
    assert f"{path}:4" in str(done.exception)
