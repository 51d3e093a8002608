"""What a run's logbook says about its containers."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster


def test_what_was_verified_on_each_node_is_in_the_logbook(piolet_run):
    if not (Path(__file__).parents[3] / ".images/demo.sqsh").exists():
        pytest.skip("needs the image of the examples (scripts/setup)")
    edf = piolet_run.root / "checked.toml"
    edf.write_text('base_environment = "demo"\n[require]\nlibraries = ["libm.so.6"]\npaths = ["/usr/bin/python3*"]')
    piolet_run("-N", "2", "--env", str(edf), "--", "true")
    files = sorted((piolet_run.logbook / "environment").iterdir())
    assert len(files) == 2
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert {"node": file.stem, "by": "environment", "kind": "library", "value": "libm.so.6"} in rows
        assert {"node": file.stem, "by": "environment", "kind": "path", "value": "/usr/bin/python3*"} in rows
    values = {row["key"]: row["value"] for row in piolet_run.read("environment.lock.json")["values"]}
    assert values["require[0]"] == "environment library libm.so.6"


def test_a_dry_run_imports_nothing(piolet_run):
    edf = piolet_run.root / "far.toml"
    edf.write_text('image = "127.0.0.1:1/no/such:image"')
    done = piolet_run("-N", "1", "--env", str(edf), "--dry-run", "--", "true")
    assert "#SBATCH --nodes=1" in done.stdout
    assert list(piolet_run.root.iterdir()) == [edf]
