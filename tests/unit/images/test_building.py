"""Images from a Containerfile and from Docker's archives, with the real tools."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import oci_images
import pytest

from piolet.tools import buildah


@pytest.fixture
def piolet(tmp_path):
    environ = os.environ | {"PIOLET_ROOT": str(tmp_path / "root"), "PIOLET_CONFIG": "", "HOME": str(tmp_path)}

    def run(*words, **more):
        argv = [sys.executable, "-m", "piolet", "env", *map(str, words)]
        return subprocess.run(
            argv, check=False, capture_output=True, text=True, env=environ | more, cwd=tmp_path, timeout=120
        )

    return run


@pytest.fixture
def context(tmp_path):
    directory = tmp_path / "context"
    directory.mkdir()
    shutil.copy("/bin/busybox", directory / "busybox")
    (directory / "Containerfile").write_text(
        "FROM scratch\nARG WORD=none\nCOPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]\n'
        'RUN echo "$WORD" > /made\nENV PATH=/bin A=b\nENTRYPOINT ["/bin/sh", "/start"]\n'
    )
    return directory


@pytest.mark.skipif(not shutil.which("buildah") or os.geteuid() != 0, reason="needs buildah, and root for its storage")
def test_a_containerfile_is_built_into_the_store(piolet, context, tmp_path):
    storage = tmp_path / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n')
    built = piolet(
        "build", context, "--name", "mine:1", "--build-arg", "WORD=hello", CONTAINERS_STORAGE_CONF=str(storage)
    )
    assert (built.returncode, built.stdout) == (0, "localhost/mine:1\n"), built.stderr
    assert "STEP" in built.stderr
    edf = tmp_path / "mine.toml"
    edf.write_text('image = "localhost/mine:1"\nentrypoint = true\n')
    rendered = piolet("render", "./mine.toml", "--format", "json").stdout
    values = {row["key"]: row["value"] for row in json.loads(rendered)["values"]}
    assert values["entrypoint[0]"] == "/bin/sh /start"
    edf.write_text('image = "localhost/mine:1"\n')
    assert piolet("run", "./mine.toml", "--", "sh", "-c", 'read line < /made; echo "$line $A"').stdout == "hello b\n"
    (context / "Containerfile").write_text("FROM scratch\nRUN nothing\n")
    failed = piolet("build", context, "--name", "mine:2", CONTAINERS_STORAGE_CONF=str(storage))
    assert failed.returncode == 3
    assert "buildah failed with status" in failed.stderr
    assert "mine:2" not in piolet("images").stdout


@pytest.fixture
def ordinary(context):
    """Run `piolet env build` as a new user of the system with a home directory, who has a range of ids; yields both."""
    name = f"piolet-{secrets.token_hex(3)}"
    home = Path(tempfile.mkdtemp(prefix="piolet-home-", dir="/var/tmp"))
    subprocess.run(["useradd", "--no-create-home", "--home-dir", home, name], check=True)
    shutil.copytree(context, home / "context")
    subprocess.run(["chown", "-R", name, home], check=True)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), "USER": name, "LOGNAME": name}
    argv = [sys.executable, "-m", "piolet", "env", "build", "context", "--name", "mine:1"]
    yield (
        name,
        lambda: subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            env=environ,
            cwd=home,
            user=name,
            group=name,
            extra_groups=[],
        ),
    )
    subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
    shutil.rmtree(home)


@pytest.mark.skipif(not shutil.which("buildah") or os.geteuid() != 0, reason="needs buildah, and root to make a user")
def test_an_ordinary_user_builds_with_a_range_of_ids(ordinary):
    name, build = ordinary
    done = build()
    assert (done.returncode, done.stdout) == (0, "localhost/mine:1\n"), done.stderr
    subprocess.run(["usermod", "--del-subuids", "0-4294967294", "--del-subgids", "0-4294967294", name], check=True)
    (Path(f"~{name}").expanduser() / "context/Containerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "true"]\n'
    )
    done = build()
    assert done.returncode == 3
    assert f"/etc/subuid and /etc/subgid have none for {name}" in done.stderr


def test_what_cannot_be_built(piolet, context, tmp_path):
    (context / "Containerfile").unlink()
    done = piolet("build", context, "--name", "mine")
    assert done.returncode == 2
    assert "no Containerfile or Dockerfile" in done.stderr
    (context / "Dockerfile").write_text("FROM scratch\n")
    done = piolet("build", context, "--name", "mine", PATH=str(tmp_path))
    assert done.returncode == 3
    assert "buildah was not found" in done.stderr


def test_the_commands(tmp_path):
    build = buildah.Build(tmp_path, tmp_path / "Dockerfile", "localhost/a:1", "arm64", ["A=b"])
    argv = buildah.build_argv("podman", build)
    assert argv[:2] == ["podman", "build"]
    assert argv[-3:] == ["--build-arg", "A=b", str(tmp_path)]
    assert buildah.push_argv("podman", "a", tmp_path) == ["podman", "push", "--quiet", "a", f"oci:{tmp_path}:image"]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
def test_an_archive_of_docker_is_imported(piolet, tmp_path):
    made = oci_images.layout(tmp_path / "layout", [oci_images.busybox_layer()], Env=["A=docker"])
    archive = tmp_path / "saved.tar"
    subprocess.run(
        ["skopeo", "copy", "--quiet", f"oci:{made}:made", f"docker-archive:{archive}:a:1"], check=True, cwd=tmp_path
    )
    done = piolet("import", archive, "--name", "from-docker:1")
    assert (done.returncode, done.stdout) == (0, "localhost/from-docker:1\n"), done.stderr
    (tmp_path / "it.toml").write_text('image = "localhost/from-docker:1"')
    assert "env.A" in piolet("render", "./it.toml").stdout
