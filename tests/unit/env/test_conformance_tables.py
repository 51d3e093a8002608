"""The reference pages name the test of each rule; every one of them is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", ["edf.md", "hooks.md", "images.md"])
def test_every_test_that_a_page_names_exists(page):
    named = set(re.findall(r"`(test_\w+)(?:\.py)?`", (ROOT / "docs/reference" / page).read_text()))
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {path.stem for path in files}
    for path in files:
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    assert named
    assert named <= there, named - there
