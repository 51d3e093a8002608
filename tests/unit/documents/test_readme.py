"""The README tells of every command, once."""

import re
from pathlib import Path

from piolet.cli.main import COMMANDS

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_readme_has_one_row_for_each_command() -> None:
    rows = re.findall(r"^\| `piolet (\S+)` \|", (CHECKOUT / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(COMMANDS)
