"""A move as a job of a real cluster: after one job, before another."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

MOVE = (sys.executable, "-m", "piolet", "data", "move")


@pytest.fixture
def place(user: str) -> Iterator[Path]:
    """A directory of the user's that every node sees."""
    with tempfile.TemporaryDirectory(prefix="piolet-", dir="/var/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)
        assert user


def test_a_move_waits_for_its_job_and_the_next_job_for_the_move(on_lab, user, place):
    script = place / "train.sh"
    script.write_text(f"#!/bin/sh\n#SBATCH --output={place}/train.log\ncat {place}/far/made\n", encoding="utf-8")
    making = f"mkdir {place}/near && echo content > {place}/near/made"
    first = on_lab(
        "sbatch", "--parsable", "--chdir=/", "--output=/dev/null", f"--wrap={making}", user=user
    ).stdout.strip()

    said = on_lab(*MOVE, place / "near", place / "far", "--after", first, "--then", script, user=user, cwd=place).stdout

    jobs = re.findall(r"^job (\d+)", said, re.MULTILINE)
    assert len(jobs) == 2, said
    on_lab("srun", f"--dependency=afterany:{jobs[1]}", "--chdir=/", "true", user=user, timeout=120)
    log = place / f"piolet-move-{jobs[0]}.log"
    assert "1 file, 8 B, read back and the same; the source is deleted" in log.read_text()
    assert (place / "train.log").read_text() == "content\n"
    assert not (place / "near").exists()
