from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from piolet.core.errors import ParseError, ToolError, ToolMissing, ToolTimeout
from piolet.core.run import PIPE, RecordingRunner, ReplayRunner, SystemRunner

RUN = SystemRunner()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_result_has_what_was_said_and_how_long_it_took() -> None:
    result = RUN.run(["sh", "-c", "echo out; echo err >&2; sleep 0.05"], timeout=10)
    assert (result.rc, result.stdout, result.stderr) == (0, "out\n", "err\n")
    assert 0.05 <= result.duration_s < 10
    assert result.argv[0] == "sh"


def test_arguments_pass_through_no_shell() -> None:
    assert RUN.run(["echo", "$HOME", "a;b", "*"], timeout=10).stdout == "$HOME a;b *\n"


def test_programs_speak_english_and_slurm_tells_seconds(monkeypatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    said = RUN.run(["sh", "-c", "echo $LC_ALL $SLURM_TIME_FORMAT"], timeout=10).stdout
    assert said == "C %s\n"


def test_without_speech_the_users_environment_is_left_alone(monkeypatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    said = SystemRunner(speech={}).run(["sh", "-c", "echo $LC_ALL $SLURM_TIME_FORMAT"], timeout=10).stdout
    assert said == "C.UTF-8\n"


def test_env_is_added_and_cwd_is_used(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    said = SystemRunner({"ADDED": "2"}, cwd=tmp_path).run(["sh", "-c", "echo $KEPT $ADDED; pwd -P"], timeout=10)
    assert said.stdout == f"1 2\n{tmp_path.resolve()}\n"


def test_stdin_is_given_or_empty() -> None:
    assert RUN.run(["cat"], timeout=10, stdin="text é").stdout == "text é"
    assert RUN.run(["cat"], timeout=10).stdout == ""


def test_output_that_is_not_utf8_survives() -> None:
    result = RUN.run(["printf", r"caf\351\n"], timeout=10)
    assert result.stdout == "caf\udce9\n"
    assert RUN.run(["cat"], timeout=10, stdin=result.stdout).stdout.encode("utf-8", "surrogateescape") == b"caf\xe9\n"


def test_a_missing_tool_is_named() -> None:
    for call in (lambda: RUN.run(["no-such-tool"], timeout=1), lambda: RUN.start(["no-such-tool"])):
        with pytest.raises(ToolMissing, match="no-such-tool was not found"):
            call()


def test_a_file_that_may_not_be_executed_is_a_clear_error(tmp_path) -> None:
    (tmp_path / "tool").write_text("no program")
    for mode in (0o644, 0o755):
        (tmp_path / "tool").chmod(mode)
        for call in (RUN.run, lambda argv, timeout: RUN.start(argv)):  # noqa: ARG005 - the same call shape
            with pytest.raises(ToolError, match=r"Permission denied|Exec format error"):
                call([str(tmp_path / "tool")], timeout=5)


def test_a_working_directory_that_is_gone_is_not_blamed_on_the_tool(tmp_path) -> None:
    with pytest.raises(ToolError, match="gone"):
        SystemRunner(cwd=tmp_path / "gone").run(["true"], timeout=5)


def test_a_bad_status_is_an_error_unless_it_is_expected() -> None:
    argv = ["sh", "-c", "echo reason >&2; exit 3"]
    with pytest.raises(ToolError, match="status 3: reason") as caught:
        RUN.run(argv, timeout=10)
    assert caught.value.rc == 3
    assert RUN.run(argv, timeout=10, ok=(0, 3)).rc == 3
    assert RUN.run(argv, timeout=10, ok=None).rc == 3


def test_a_time_out_kills_the_program_and_keeps_what_it_said() -> None:
    began = time.monotonic()
    with pytest.raises(ToolTimeout) as caught:
        RUN.run(python("import os,time; print(os.getpid(), flush=True); time.sleep(60)"), timeout=0.5)
    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(caught.value.stdout), 0)
    assert caught.value.timeout_s == 0.5


def test_a_time_out_without_output_is_one_too() -> None:
    with pytest.raises(ToolTimeout) as caught:
        RUN.run(["sleep", "60"], timeout=0.05)
    assert (caught.value.stdout, caught.value.stderr) == ("", "")


def test_a_grandchild_that_holds_the_pipe_does_not_outlive_the_time_out() -> None:
    began = time.monotonic()
    with pytest.raises(ToolTimeout):
        RUN.run(["sh", "-c", "sleep 20 & wait"], timeout=0.3)
    assert time.monotonic() - began < 15


def test_death_by_a_signal_is_a_negative_status() -> None:
    with pytest.raises(ToolError, match="status -9"):
        RUN.run(["sh", "-c", "kill -KILL $$"], timeout=10)


def test_a_started_program_runs_on_its_own() -> None:
    with RUN.start(["sh", "-c", "echo $$; exec sleep 60"], stdout=PIPE, new_session=True) as child:
        assert child.stdout
        assert int(child.stdout.readline()) == child.pid
        assert os.getsid(child.pid) == child.pid
        child.send_signal(signal.SIGTERM)
    assert child.returncode == -signal.SIGTERM


def test_recordings_answer_as_the_programs_did(tmp_path) -> None:
    recorder = RecordingRunner(RUN, tmp_path)
    argv = ["sh", "-c", r"printf 'caf\351\n'; echo é >&2; exit 4"]
    with pytest.raises(ToolError):
        recorder.run(argv, timeout=10)
    real = recorder.run(argv, timeout=10, ok=(4,), stdin="in \udcff")
    replayed = ReplayRunner(tmp_path).run(argv, timeout=0.001, ok=(4,))
    assert (
        (replayed.rc, replayed.stdout, replayed.stderr)
        == (real.rc, real.stdout, real.stderr)
        == (
            4,
            "caf\udce9\n",
            "é\n",
        )
    )
    with pytest.raises(ToolError, match="status 4"):
        ReplayRunner(tmp_path).run(argv, timeout=1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["001-sh.json", "002-sh.json"]


def test_the_same_question_gets_the_next_answer_and_then_the_last_for_ever(tmp_path) -> None:
    counter, recordings = tmp_path / "counter", tmp_path / "recordings"
    argv = ["sh", "-c", f"echo x >> {counter}; grep -c x {counter}"]
    recorder = RecordingRunner(RUN, recordings)
    for _ in range(2):
        recorder.run(argv, timeout=10)
    replay = ReplayRunner(recordings)
    assert [replay.run(argv, timeout=1).stdout for _ in range(4)] == ["1\n", "2\n", "2\n", "2\n"]


def test_a_question_that_was_never_recorded_is_named(tmp_path) -> None:
    with pytest.raises(ParseError, match="no recording answers") as caught:
        ReplayRunner(tmp_path).run(["squeue", "-x"], timeout=1)
    assert "squeue" in caught.value.what


def test_a_torn_recording_is_named(tmp_path) -> None:
    (tmp_path / "001-x.json").write_text('{"argv": ["x"]')
    with pytest.raises(ParseError, match="not valid JSON"):
        ReplayRunner(tmp_path)
