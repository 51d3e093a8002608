"""Credentials from the files that users have."""

import base64
import json

import pytest

from piolet.core.errors import ParseError
from piolet.core.run import SystemRunner
from piolet.tools.oci import credentials, reference


def auths(**by_host):
    return json.dumps({"auths": {host.replace("_", "."): {"auth": _encoded(pair)} for host, pair in by_host.items()}})


def _encoded(pair):
    return base64.b64encode(pair.encode()).decode()


@pytest.fixture
def find(tmp_path):
    def found(name, files, **environ):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        variables = {"HOME": str(tmp_path)} | {key: value.format(home=tmp_path) for key, value in environ.items()}
        return credentials.find(reference.parse(name), variables, SystemRunner(env=variables))

    return found


def test_none(find):
    assert find("ubuntu", {}) is None


@pytest.mark.parametrize(
    ("files", "environ"),
    [
        ({".docker/config.json": auths(quay_io="ada:pw:1")}, {}),
        ({".config/containers/auth.json": auths(quay_io="ada:pw:1")}, {}),
        ({"run/containers/auth.json": auths(quay_io="ada:pw:1")}, {"XDG_RUNTIME_DIR": "{home}/run"}),
        ({"own.json": auths(quay_io="ada:pw:1")}, {"REGISTRY_AUTH_FILE": "{home}/own.json"}),
        ({".config/enroot/.credentials": "machine quay.io login ada password pw:1\n"}, {}),
        ({".config/enroot/.credentials": "machine quay.io login ada password $SECRET\n"}, {"SECRET": "pw:1"}),
        ({"own/.credentials": "machine quay.io login ada password pw:1\n"}, {"ENROOT_CONFIG_PATH": "{home}/own"}),
    ],
)
def test_every_file(find, files, environ):
    found = find("quay.io/team/tool", files, **environ)
    assert (found.user, found.secret) == ("ada", "pw:1")
    assert "pw:1" not in repr(found)


def test_the_most_specific_and_the_users_own_come_first(find):
    content = {"auths": {"quay.io": {"auth": _encoded("a:1")}, "quay.io/team": {"auth": _encoded("b:2")}}}
    files = {".docker/config.json": json.dumps(content)}
    assert find("quay.io/team/tool", files).user == "b"
    assert find("quay.io/other/tool", files).user == "a"
    assert find("a@quay.io#team/tool", files).user == "a"
    assert find("nobody@quay.io#team/tool", files) is None


def test_docker_hub_has_many_names(find):
    for name in ("https://index.docker.io/v1/", "docker.io"):
        content = json.dumps({"auths": {name: {"auth": _encoded("ada:pw")}}})
        assert find("ubuntu", {".docker/config.json": content}).user == "ada"
    netrc = {".docker/config.json": "{}", ".config/enroot/.credentials": "machine auth.docker.io login eve password x"}
    assert find("ubuntu", netrc).user == "eve"


def test_a_credential_helper(find, tmp_path):
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"for $host\\"}"\n')
    helper.chmod(0o755)
    files = {".docker/config.json": json.dumps({"credHelpers": {"quay.io": "test"}})}
    found = find("quay.io/a/b", files, PATH="{home}/bin:/bin:/usr/bin")
    assert (found.secret, found.is_token) == ("for quay.io", True)


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"quay.io": {"auth": "?"}}}'])
def test_broken_files_are_named(find, text):
    with pytest.raises(ParseError) as caught:
        find("quay.io/a/b", {".docker/config.json": text})
    assert "config.json" in caught.value.where
