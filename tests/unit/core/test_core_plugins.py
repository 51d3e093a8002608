from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from piolet.core import plugins
from piolet.core.nouns import Severity

GROUP = "piolet.tests"


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


@pytest.fixture
def broken_module(tmp_path, monkeypatch):
    """Makes an importable module with the given code."""

    def make(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(code)
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    return make


def test_good_plugins_load_although_others_are_broken(broken_module) -> None:
    broken_module("plugin_that_fails", "1 / 0")
    broken_module("plugin_with_a_typo", "def f(:\n")
    broken_module("plugin_that_exits", "raise SystemExit(3)")
    loaded = plugins.load_entries(
        [
            entry("gone", "no_such_module:thing"),
            entry("empty", "json:no_such_name"),
            entry("fails", "plugin_that_fails:thing"),
            entry("typo", "plugin_with_a_typo:thing"),
            entry("exits", "plugin_that_exits:thing"),
            entry("good", "json:dumps"),
        ]
    )
    assert list(loaded.loaded) == ["good"]
    reasons = {finding.subject.rpartition(":")[2]: finding.reason for finding in loaded.broken}
    assert sorted(reasons) == ["empty", "exits", "fails", "gone", "typo"]
    assert "ModuleNotFoundError" in reasons["gone"]
    assert "AttributeError" in reasons["empty"]
    assert "ZeroDivisionError: division by zero" in reasons["fails"]
    assert "SyntaxError" in reasons["typo"]
    assert "SystemExit" in reasons["exits"]


def test_a_finding_says_which_package_to_mend() -> None:
    (finding,) = plugins.load_entries([entry("gone", "no_such_module:thing")]).broken
    assert finding.severity is Severity.ERROR
    assert finding.subject == f"plugin {GROUP}:gone"
    assert finding.evidence == {"value": "no_such_module:thing"}
    assert "no_such_module:thing" in finding.suggested_action


def test_ctrl_c_while_loading_is_not_swallowed(broken_module) -> None:
    broken_module("plugin_interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        plugins.load_entries([entry("slow", "plugin_interrupted:thing")])


@pytest.mark.parametrize("group", ["piolet.checks", "piolet.collectors"])
def test_every_built_in_loads(group) -> None:
    registered = plugins.names(group)
    loaded = plugins.load(group)
    assert loaded.broken == ()
    assert tuple(sorted(loaded.loaded)) == registered
    assert registered


def test_only_what_is_wanted_is_imported() -> None:
    wanted = plugins.names("piolet.checks")[0]
    assert list(plugins.load("piolet.checks", only=[wanted]).loaded) == [wanted]
    assert plugins.load("piolet.checks", only=[]).loaded == {}
