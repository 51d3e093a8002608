from __future__ import annotations

import importlib
import pkgutil
import re
import signal

import click
import pytest

import piolet
from piolet.cli import main as cli
from piolet.core import errors
from piolet.core.errors import (
    ConfigError,
    ParseError,
    PioletError,
    Refused,
    StorageError,
    ToolError,
    ToolMissing,
    ToolTimeout,
    UsageError,
    storage_errors,
)
from piolet.tools.slurm import errors as slurm_errors


def every_error() -> list[type[PioletError]]:
    for module in pkgutil.walk_packages(piolet.__path__, "piolet."):
        if module.name.split(".")[1] in {"core", "tools", "logbook"}:
            importlib.import_module(module.name)
    found, queue = [], [PioletError]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if cls.__module__.split(".")[1] in {"core", "tools", "logbook"}:
            found.append(cls)
    return found


@pytest.mark.parametrize("cls", every_error(), ids=lambda cls: cls.__name__)
def test_each_error_is_explained_by_its_module(cls: type[PioletError]) -> None:
    explained = importlib.import_module(cls.__module__).__doc__ or ""
    assert cls.__name__ in explained, f"{cls.__name__} is missing from the docstring of {cls.__module__}"


@pytest.mark.parametrize("module", [errors, slurm_errors], ids=lambda module: module.__name__)
def test_the_trees_in_docstrings_are_those_of_the_code(module) -> None:
    drawn = {name: int(status) for name, status in re.findall(r"(\w+) +exit (\d)", module.__doc__)}
    assert drawn == {cls.__name__: cls.exit_status for cls in every_error() if cls.__module__ == module.__name__}


def test_the_core_tree_shows_who_descends_from_whom() -> None:
    ancestors: list[str] = []
    for indent, name in re.findall(r"^    ([|+ -]*)(\w+) +exit", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4
        ancestors[depth:] = [name]
        assert depth == 0 or getattr(errors, name).__base__.__name__ == ancestors[depth - 1]


@pytest.mark.parametrize("cls", every_error(), ids=lambda cls: cls.__name__)
def test_wrong_usage_exits_with_2_and_everything_else_with_3(cls: type[PioletError]) -> None:
    assert cls.exit_status == (2 if issubclass(cls, UsageError) else 3)


def test_a_message_says_what_where_and_what_next() -> None:
    assert str(PioletError("it broke", where="here", remedy="mend it")) == "it broke\n  where: here\n  next:  mend it"
    assert str(PioletError("it broke")) == "it broke"


def test_a_config_error_points_at_line_and_column() -> None:
    error = ConfigError("bad", path="/etc/x.toml", key="a.b", line=3, column=7)
    assert "where: /etc/x.toml:3:7 (a.b)" in str(error)
    assert (error.path, error.key, error.line, error.column) == ("/etc/x.toml", "a.b", 3, 7)
    assert "where: /etc/x.toml\n" in f"{ConfigError('bad', path='/etc/x.toml')}\n"


def test_a_tool_error_keeps_the_end_of_a_long_stderr() -> None:
    error = ToolError(["tool", "a b"], 4, "x" * 5000 + "the reason\n", stdout="out", remedy="mend")
    assert len(error.stderr_tail) == 2000
    assert error.stderr_tail.endswith("the reason")
    assert "tool failed with status 4" in str(error)
    assert "where: tool 'a b'" in str(error)
    assert error.stdout == "out"


def test_a_tool_error_without_stderr_says_only_the_status() -> None:
    assert ToolError(["tool"], 1).what == "tool failed with status 1"


def test_time_outs_missing_tools_and_parse_errors_say_what_to_do() -> None:
    raised = (ToolTimeout(["slow", "-x"], 2.5, stdout="half"), ToolMissing("nvcc"), ParseError("odd", source="tool"))
    assert all(error.remedy for error in raised)
    assert "within 2.5 s" in raised[0].what
    assert ToolMissing("nvcc", remedy="load cuda").remedy == "load cuda"
    assert "near 'a" in ParseError("odd", source="tool", text="a" * 500).what


def test_storage_errors_name_the_file_that_refused(tmp_path) -> None:
    with pytest.raises(StorageError, match="cannot read: No such file") as caught, storage_errors("/", "read"):
        (tmp_path / "gone").read_text()
    assert caught.value.where == str(tmp_path / "gone")
    assert caught.value.remedy


def test_an_os_error_without_a_file_names_the_path_that_was_given() -> None:
    with pytest.raises(StorageError) as caught, storage_errors("/data", "write"):
        raise OSError(28, "No space left on device")
    assert caught.value.where == "/data"
    assert "No space left" in caught.value.what


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (UsageError("no", remedy="do so"), 2, "next:  do so"),
        (Refused("no"), 2, "piolet: no"),
        (ToolMissing("x"), 3, "x was not found"),
        (click.UsageError("what?"), 2, "what?"),
        (KeyboardInterrupt(), 128 + signal.SIGINT, "interrupted"),
        (click.Abort(), 128 + signal.SIGINT, "interrupted"),
    ],
)
def test_the_command_line_turns_errors_into_a_message_and_a_status(raised, status, said, monkeypatch, capsys) -> None:
    @click.command()
    def failing() -> None:
        raise raised

    monkeypatch.setattr(cli, "command", failing)
    assert cli.run_command([]) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
