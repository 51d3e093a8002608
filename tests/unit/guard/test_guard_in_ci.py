"""The example for the CI of users' repositories, run as it stands in a repository of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import model_corpus
import pytest
from leaking import SCRIPT

EXAMPLE = Path(__file__).parents[3] / "examples/03-guard-in-ci"


@pytest.fixture
def repository(tmp_path):
    shutil.copy(EXAMPLE / "guard.toml", tmp_path)
    for name in ("scripts", "models"):
        (tmp_path / name).mkdir()
    (tmp_path / "scripts/good.sh").write_text("#!/bin/bash\nsrun python train.py\n")
    (tmp_path / "models/a.safetensors").write_bytes(model_corpus.benign()["model.safetensors"])
    return tmp_path


def guarded(repository):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    argv = ["bash", EXAMPLE / "guard.sh"]
    return subprocess.run(
        argv, check=False, cwd=repository, env=os.environ | {"PATH": path}, capture_output=True
    ).returncode


def test_a_clean_repository_passes_and_leaves_sarif(repository):
    assert guarded(repository) == 0
    found = {path.name: json.loads(path.read_text()) for path in repository.glob("guard-*.sarif")}
    assert set(found) == {"guard-script.sarif", "guard-model.sarif"}


def test_what_the_policy_allows_passes_and_the_rest_fails(repository):
    (repository / "scripts/shared.sh").write_text("#!/bin/bash\nchmod 777 /course\n")
    assert guarded(repository) == 0
    (repository / "scripts/leaks.sh").write_text(SCRIPT)
    assert guarded(repository) == 1
    results = json.loads((repository / "guard-script.sarif").read_text())["runs"][0]["results"]
    assert {"scripts/leaks.sh", "scripts/shared.sh"} == {
        each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in results
    }


def test_a_bad_model_after_good_scripts_fails(repository):
    (repository / "models/b.pkl").write_bytes(model_corpus.malicious()["memo.pkl"])
    assert guarded(repository) == 1
