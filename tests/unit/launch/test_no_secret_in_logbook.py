"""A job script with seven leaks is run and recorded; nothing in the logbook holds any of its secrets."""

import contextlib
import os
import subprocess
import sys

import duckdb
from leaking import HUGGING_FACE, OPENAI, SCRIPT, SECRETS, WANDB

from piolet.logbook.layout import Logbook
from piolet.logbook.writer import SegmentWriter

PROGRAM = """
import piolet, os
piolet.phase("phase-" + os.environ["HF_TOKEN"][:40])
piolet.log(step=1, loss=2.0)
"""


def test_no_secret_of_a_job_reaches_its_logbook(tmp_path):
    (tmp_path / "site.toml").touch()
    (tmp_path / "job.sh").write_text(SCRIPT)
    variables = {"HF_TOKEN": HUGGING_FACE, "WANDB_API_KEY": WANDB, "PIOLET_ROOT": str(tmp_path / "root")}
    places = {"PIOLET_SITE_CONFIG": str(tmp_path / "site.toml"), "XDG_CONFIG_HOME": str(tmp_path)}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")} | variables | places
    piolet = [sys.executable, "-m", "piolet", "run", "--local", "--record"]
    program = [sys.executable, "-c", PROGRAM, "--api-key", OPENAI, SCRIPT]
    done = subprocess.run(
        [*piolet, "--", *program], check=False, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert {"job.json", "outcome.json"} <= {path.name for path in files}
    said = "".join(content(path) for path in files)
    assert "[redacted: openai-key]" in said
    assert not [secret for secret in SECRETS if secret in said]


def test_no_secret_reaches_an_event(tmp_path):
    with contextlib.closing(SegmentWriter(Logbook(tmp_path), "n1")) as writer:
        event = {"time_ns": 1, "node": "n1", "kind": "phase", "code": HUGGING_FACE, "message": f"enters {OPENAI} now"}
        writer.append("events", event)
        (segment,) = writer.flush()
        said = content(segment)
    assert "enters [redacted: openai-key] now" in said
    assert HUGGING_FACE not in said


def content(path):
    """Return all that a file says; segments are compressed, so their rows."""
    if path.suffix == ".parquet":
        return str(duckdb.sql(f"SELECT * FROM '{path}'").fetchall())  # noqa: S608 - a path of the test's own
    return path.read_bytes().decode("utf-8", "replace")
