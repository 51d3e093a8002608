"""Names of images, as EDFs, Docker and enroot write them."""

import pytest

from piolet.tools.oci import reference

DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04"),
        ("team/tool", "docker.io/team/tool:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("nvcr.io#nvidia/pytorch:24.01-py3", "nvcr.io/nvidia/pytorch:24.01-py3"),
        ("nvcr.io/nvidia/pytorch:24.01-py3", "nvcr.io/nvidia/pytorch:24.01-py3"),
        ("docker://ubuntu", "docker.io/library/ubuntu:latest"),
        ("localhost/own", "localhost/own:latest"),
        ("registry.site:5000/a/b/c", "registry.site:5000/a/b/c:latest"),
        (f"ubuntu@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
        (f"ubuntu:22.04@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
    ],
)
def test_names(text, name):
    found = reference.parse(text)
    assert str(found) == name
    assert not found.user


def test_a_user_chooses_among_credentials():
    found = reference.parse(f"ada@quay.io#team/tool@{DIGEST}")
    assert (found.user, found.registry, found.digest) == ("ada", "quay.io", DIGEST)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Ubuntu", "in lower case"),
        ("a b", "not the name of an image"),
        ("x:y z", "not a tag"),
        ("x@sha256:12", "not a digest"),
        ("", "not the name of an image"),
        ("#x", ""),
        ("bad_host!#x", "not the name of a registry"),
    ],
)
def test_refused(text, what):
    if not what:
        assert reference.parse(text).registry == "docker.io"
        return
    with pytest.raises(ValueError, match=what):
        reference.parse(text)
