"""Reading service.toml and platform.toml strictly."""

import pytest

from piolet.core.config import load
from piolet.core.errors import ConfigError, UsageError
from piolet.core.settings import Settings
from piolet.service import of_site
from piolet.service import platform as platforms


@pytest.mark.parametrize(
    ("text", "what", "remedy", "line"),
    [
        ("replcas = 2", 'unknown key "replcas"', 'did you mean "replicas"?', 7),
        ('port = "8080"', "not valid TOML", "correct the file", 7),
        ('replicas = "2"', "replicas: input should be", "correct the value", 7),
        ("replicas = true", "replicas: input should be", "correct the value", 7),
        ('run_on = "gpus"', "run_on: input should be 'commodity', 'gpu' or 'slurm'", "correct the value", 7),
        ("resources = { cpu = 2 }", 'unknown key "resources.cpu"', "docs/reference/service.md", 7),
        ('resources = { memory = "4GB" }', "resources.memory: does not have the form", "correct the value", 7),
        ("resources = { gpus = 1 }", "commodity nodes have no GPUs", 'set run_on = "gpu"', 7),
        ('host = "a.b.org"', "host has no effect", "set expose", 7),
        ('schedule = "* * * * *"', "port does not go with a schedule", "remove port", 4),
        ("replicas = { min = 3, max = 2 }", "replicas.max is less than replicas.min", "correct one", 7),
        ('[env]\n"a b" = "c"', "env.a b: does not have the form", "correct the value", 8),
        ('[env]\nA = "\\u0000"', "env.A: holds a control character", "correct the value", 8),
        ('[env]\nA = "x"\n[secrets]\nA = "climate/a#b"', "A is in env as well", "keep it in one", 10),
        ('[storage.a]\npath = "/a/../etc"\nsize = "1GiB"', "storage.a.path: must be an absolute path", "correct", 8),
        ('[files]\n"/etc/a" = "../a"', "../a is not beside the service's file", "copy the file there", 8),
        ('[files]\n"/etc/a" = "gone"', "there is no file gone", "looked for in", 8),
    ],
)
def test_strict(desk, text, what, remedy, line):
    with pytest.raises((ConfigError, UsageError)) as caught:
        desk.read(f"{desk.right}{text}\n")
    said = str(caught.value)
    assert what in said
    assert remedy in said
    assert f"service.toml:{line}" in said
    assert caught.value.exit_status == 2


def test_all_problems_at_once(desk):
    with pytest.raises(UsageError, match="4 problems") as caught:
        desk.read('name = "Web"\nimag = "x"\nport = 80\n')
    assert str(caught.value).count("where:") == 4
    for word in (
        "name: does not have the form",
        "project is missing",
        'did you mean "image"',
        "port: ",
    ):
        assert word in str(caught.value)


def test_a_file_that_is_not_text_is_refused(desk, right):
    (desk.directory / "data").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="data is not text"):
        desk.read(f'{right}[files]\n"/etc/data" = "data"\n')


def test_a_platform_must_be_named_and_asks_for_a_login(tmp_path, platform):
    with pytest.raises(UsageError, match="no service platform is described here"):
        of_site(load(environ={"PIOLET_SERVICE_PLATFORM": str(tmp_path / "none.toml")}).settings)
    assert Settings().service.platform.name == "platform.toml"
    path = tmp_path / "platform.toml"
    path.write_text(
        'domain = "a.org"\nregistries = ["r.org"]\n[pools.commodity]\nlabels = { a = "b" }\n'
        '[exposure.internet]\nclass_name = "nginx"\nnamespace = "ingress"\n'
    )
    with pytest.raises(ConfigError, match="nobody would be asked to log in") as caught:
        platforms.read(path)
    assert caught.value.line == 5
    assert platform.namespace("climate") == "svc-climate"
