"""A store, importers of it, and a real registry that all tests of a run share."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import oci_images
import pytest

from piolet.env.importing import Importer
from piolet.env.store import Store
from piolet.tools.oci import reference


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    if not shutil.which("docker-registry") or not shutil.which("skopeo"):
        pytest.skip("needs docker-registry and skopeo")
    yield from oci_images.serve(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def busybox(registry, tmp_path_factory):
    """The name of an image in the registry that can run a shell."""
    if not Path("/bin/busybox").exists():
        pytest.skip("needs busybox-static")
    made = oci_images.layout(
        tmp_path_factory.mktemp("busybox") / "layout",
        [oci_images.busybox_layer()],
        Env=["PATH=/bin", "FROM_IMAGE=a b"],
        WorkingDir="/etc",
    )
    return registry.push(made, "team/busybox:1")


@dataclass
class Home:
    """A user's home directory with a store in it."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.path / "root/images")

    def importer(self, **options) -> Importer:
        return Importer(self.store, os.uname().machine, self.environ, **options)

    def pull(self, name: str, **options):
        return self.importer(**options).pull(reference.parse(name))

    def log_in(self, registry) -> None:
        pair = base64.b64encode(f"{oci_images.USER}:{oci_images.PASSWORD}".encode()).decode()
        file = self.path / ".docker/config.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `piolet env` as it is typed."""
        environ = {"PATH": os.environ["PATH"], "PIOLET_ROOT": str(self.path / "root")} | self.environ
        return subprocess.Popen(
            [sys.executable, "-m", "piolet", "env", *words],
            cwd=self.path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        out, err = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path, {"HOME": str(tmp_path)})
