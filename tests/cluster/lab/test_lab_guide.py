"""Every command of the lab's guide does what the guide says, in the guide's order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from piolet.lab import down

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("machine")]

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "lab.md"


def test_the_commands_of_the_guide_work(labs: Path, user: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    script = "set -ex\n" + "".join(blocks).replace("$USER", user)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PIOLET_LAB_DIRECTORY": str(labs), "PATH": path}
    try:
        done = subprocess.run(
            ["sh"], check=False, input=script, capture_output=True, text=True, env=environment, cwd=labs, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "GPU is lost" in done.stdout
        assert list(labs.glob("lab*")) == []
    finally:
        down("lab", labs)
        down("wide", labs)
