"""The documentation builds into a site without a warning, and the site loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from piolet.cli.main import COMMANDS

CHECKOUT = Path(__file__).resolve().parents[3]
MKDOCS = Path(sys.executable).parent / "mkdocs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    there = tmp_path_factory.mktemp("site")
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(
        [MKDOCS, "build", "--quiet", "--site-dir", there],
        check=False,
        capture_output=True,
        cwd=CHECKOUT,
        env=quiet,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return there


def test_the_site_has_a_page_for_each_page_and_each_command(site: Path) -> None:
    for command in COMMANDS:
        assert f"Usage: piolet {command}" in (site / "reference" / "commands" / command / "index.html").read_text()
    for page in (CHECKOUT / "docs").rglob("[!.]*.md"):
        name = page.relative_to(CHECKOUT / "docs").with_suffix("")
        there = name.parent if name.name in ("index", "README") else name
        assert (site / there / "index.html").is_file(), page


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"""<(?:script|img|link|iframe)[^>]+(?:src|href)="(https?://[^"]+)""")
    found = {url for page in site.rglob("*.html") for url in loads.findall(page.read_text())}
    assert not found
