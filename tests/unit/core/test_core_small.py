from __future__ import annotations

import subprocess
import sys
import time

import pytest

from piolet.core import native, toml
from piolet.core.errors import ConfigError, ParseError, StorageError, ToolMissing
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Interval, Status
from piolet.core.text import did_you_mean, plural

HEAVY = (
    "ClusterShell",
    "duckdb",
    "httpx2",
    "jinja2",
    "numpy",
    "piolet.lab",
    "piolet.launch",
    "piolet.logbook",
    "platformdirs",
    "pydantic",
    "pynvml",
    "rich",
    "structlog",
    "tree_sitter",
    "yaml",
)  # fmt: skip - a list


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from piolet.cli.main import run_command; run_command(['--help']);"
        f"print('imported:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert "Commands:" in done.stdout
    assert done.stdout.endswith("imported: []\n")


def test_the_log_goes_to_stderr_with_its_traceback() -> None:
    code = (
        "from piolet.core.log import logger\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logger('a').exception('it failed', node='node1')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == ""
    assert 'event="it failed"' in done.stderr
    assert "node=node1" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_c_part_that_was_not_built_says_how_to_build_it() -> None:
    with pytest.raises(ToolMissing, match=r"no-such\.so") as caught:
        native.native("no-such.so")
    assert "make native" in caught.value.remedy


def test_hints_name_the_nearest_word_or_all() -> None:
    assert did_you_mean("mouts", ["mounts", "image"]) == 'did you mean "mounts"?'
    assert did_you_mean("zzz", ["mounts", "image"]) == "known here: image, mounts"
    assert did_you_mean("zzz", []) == "nothing is known here"
    assert (plural(1, "node"), plural(0, "node"), plural(4, "node")) == ("1 node", "0 nodes", "4 nodes")


def test_an_interval_tells_seconds() -> None:
    assert Interval(1_000_000_000, 3_500_000_000).duration_s == 2.5


def test_a_check_result_is_dated_when_it_is_made() -> None:
    before = time.time_ns()
    assert before <= CheckResult("gpu", "node1", Status.PASS, "ok").time_ns <= time.time_ns()


def test_a_toml_error_has_its_line_and_column(tmp_path) -> None:
    (tmp_path / "x.toml").write_text("a = 1\nb = [1,\n2\nc = 3\n")
    with pytest.raises(ConfigError) as caught:
        toml.read(tmp_path / "x.toml")
    assert (caught.value.line, caught.value.column) == (4, 1)


@pytest.mark.parametrize("text", ["a = ", "a", "[", "a = 'open"])
def test_a_toml_error_at_the_very_end_is_one_too(tmp_path, text) -> None:
    with pytest.raises(ConfigError, match="not valid TOML"):
        toml.parse(text.encode(), tmp_path / "x.toml")


def test_a_missing_toml_file_is_a_storage_error(tmp_path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        toml.read(tmp_path / "gone.toml")


def test_a_key_without_a_place_of_its_own_points_at_its_parent(tmp_path) -> None:
    document = toml.parse(b"a = 1\n[b]\nc = [1]\n", tmp_path / "x.toml")
    assert document.position("b.c[7].d") == document.position("b.c") == toml.Position(3, 1)
    assert document.position("nowhere") is None
    assert document.error("bad", "nowhere").line is None
    assert (document.error("bad", "b.c[0]").line, document.error("bad", "b.c[0]").column) == (3, 6)


def test_columns_count_characters_not_bytes(tmp_path) -> None:
    document = toml.parse('x = { "é€" = 1, b = 2 }\n'.encode(), tmp_path / "x.toml")
    assert document.positions["x.b"] == toml.Position(1, 17)


@pytest.mark.parametrize("text", ["n[", "n[1-", "n]", "n[3-1]", "n,,m", ",", "n[1-99999999999]"])
def test_what_is_no_node_list_is_a_parse_error(text) -> None:
    with pytest.raises(ParseError, match="not a node list"):
        NodeSet(text)


def test_groups_and_wildcards_are_only_names() -> None:
    assert list(NodeSet("@all,node*")) == ["@all", "node*"]


def test_a_node_set_says_what_it_holds() -> None:
    nodes = NodeSet("rack[1-2]n[01-02],login1")
    assert len(nodes) == 5
    assert "rack2n01" in nodes
    assert "rack2n1" not in nodes
    assert "" not in nodes
    assert 3 not in nodes
    assert repr(NodeSet("a[1-2]")) == "NodeSet('a[1-2]')"
    assert not NodeSet()
    assert str(nodes.first(0)) == ""
    assert nodes.first(99) == nodes
    assert NodeSet("a1") != "a1"


def test_a_package_of_an_extra_that_is_missing_is_named_with_its_extra() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from piolet.cli.main import run_command; sys.exit(run_command(['web', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert 'pip install "piolet[web]"' in done.stderr
    assert "Traceback" not in done.stderr
