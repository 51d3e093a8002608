"""A release is whole and signed, and a checkout with changes makes none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_release_is_verified_as_its_users_do_and_changes_are_refused(tmp_path):
    checkout, key = tmp_path / "checkout", tmp_path / "key"
    subprocess.run(["git", "clone", "--quiet", "--local", ROOT, checkout], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text()
    (tmp_path / "allowed_signers").write_text(f"maker@example.org {public}")
    release = [checkout / "scripts/release", key, key.with_suffix(".pub")]

    installed = os.environ | {"PIOLET_INSTALLED": sys.prefix}
    subprocess.run(release, check=True, capture_output=True, env=installed)

    made = checkout / "build/release"
    verify = "ssh-keygen -Y verify -f ../../../allowed_signers -I maker@example.org -n piolet-release -s SHA256SUMS.sig"
    check = f"{verify} < SHA256SUMS && sha256sum --check --quiet SHA256SUMS"
    subprocess.run(["sh", "-c", check], cwd=made, check=True, capture_output=True)
    names = sorted(path.name for path in made.iterdir())
    assert names == ["SHA256SUMS", "SHA256SUMS.sig", "key.pub", *sorted(n for n in names if n.startswith("piolet-"))]
    [sbom] = made.glob("*.cdx.json")
    packages = {each["name"] for each in json.loads(sbom.read_text())["components"]}
    assert {"piolet", "duckdb", "pydantic", "starlette"} <= packages
    (made / "key.pub").write_text("another")
    assert subprocess.run(["sh", "-c", check], cwd=made, check=False, capture_output=True).returncode
    (checkout / "new").touch()
    refused = subprocess.run(release, check=False, capture_output=True, text=True)
    assert (refused.returncode, "the checkout has changes" in refused.stderr) == (2, True)
