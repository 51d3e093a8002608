"""The Runner: the only place in Piolet that starts programs.

Programs are argv lists, never a shell string, speak English (LC_ALL=C) and, those of Slurm, tell the time in Unix
seconds, and always have a time-out. Three runners share one interface: SystemRunner runs, RecordingRunner runs and
keeps what was said, ReplayRunner answers from such a recording. Output that is not UTF-8 survives as surrogate
escapes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from piolet.core.errors import ParseError, PioletError, ToolError, ToolMissing, ToolTimeout
from piolet.core.files import read_json, write_json

Process = subprocess.Popen[str]
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
STDOUT = subprocess.STDOUT

SPEECH = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished program said; `duration_s` is wall-clock seconds."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str
    duration_s: float = 0.0


class Runner(Protocol):
    """Runs a program to its end."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        ok: Sequence[int] | None = (0,),
        stdin: str | None = None,
    ) -> Result:
        """Run `argv` for at most `timeout` seconds and return what it said.

        `ok` lists the exit statuses that are not errors; None accepts any.

        Raises:
            ToolMissing: argv[0] is not on PATH.
            ToolTimeout: it did not finish; it has been killed, and the error keeps its partial output.
            ToolError: its exit status is not in `ok`, or it could not be started.
        """
        ...


@dataclass(frozen=True, slots=True)
class SystemRunner:
    """Runs programs on this machine, with `env` laid over this process's environment; None removes a variable.

    `own_session` keeps the terminal's Ctrl-C from programs that `run` starts. `speech` makes answers readable to
    parsers; it is empty for a program that hands its environment on, as sbatch does to the user's job.
    """

    env: Mapping[str, str | None] | None = None
    cwd: Path | None = None
    own_session: bool = False
    speech: Mapping[str, str] = field(default_factory=lambda: SPEECH)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        ok: Sequence[int] | None = (0,),
        stdin: str | None = None,
    ) -> Result:
        """See Runner.run."""
        started = time.monotonic()
        try:
            done = subprocess.run(
                argv,
                check=False,
                capture_output=True,
                cwd=self.cwd,
                encoding="utf-8",
                env=self.environment(),
                errors="surrogateescape",
                input=stdin,
                start_new_session=self.own_session,
                stdin=DEVNULL if stdin is None else None,
                timeout=timeout,
            )
        except OSError as error:
            raise _not_started(argv, error) from error
        except subprocess.TimeoutExpired as error:
            raise ToolTimeout(argv, timeout, stdout=_as_text(error.stdout), stderr=_as_text(error.stderr)) from error
        result = Result(tuple(argv), done.returncode, done.stdout, done.stderr, time.monotonic() - started)
        return _checked(result, ok)

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[Any] | None = DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        new_session: bool = False,
    ) -> Process:
        """Start `argv` and return at once; the caller waits for it and ends it.

        Its locale is left alone, since this starts the user's programs and daemons.

        Raises:
            ToolMissing: argv[0] is not on PATH.
            ToolError: it could not be started.
        """
        try:
            return subprocess.Popen(
                argv,
                cwd=self.cwd,
                encoding="utf-8",
                env=self._over(os.environ),
                errors="surrogateescape",
                start_new_session=new_session,
                stderr=stderr,
                stdin=stdin,
                stdout=stdout,
            )
        except OSError as error:
            raise _not_started(argv, error) from error

    def environment(self) -> dict[str, str]:
        """Return the environment that `run` gives to programs."""
        return self._over(os.environ | dict(self.speech))

    def _over(self, environ: Mapping[str, str]) -> dict[str, str]:
        merged = dict(environ) | dict(self.env or {})
        return {name: value for name, value in merged.items() if value is not None}


class RecordingRunner:
    """Runs through `inner` and writes each answer to `directory`, one JSON file a call, for ReplayRunner."""

    def __init__(self, inner: Runner, directory: Path) -> None:
        self._inner = inner
        self._directory = directory
        self._count = 0

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        ok: Sequence[int] | None = (0,),
        stdin: str | None = None,
    ) -> Result:
        """See Runner.run."""
        result = self._inner.run(argv, timeout=timeout, ok=None, stdin=stdin)
        self._count += 1
        record = asdict(result) | {"stdin": stdin}
        path = self._directory / f"{self._count:03d}-{Path(argv[0]).name}.json"
        write_json(path, json.loads(json.dumps(record)))
        return _checked(result, ok)


class ReplayRunner:
    """Answers from the recordings of a directory.

    The same argv asked again gets the next recorded answer to it, then the last one for ever.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._answers: dict[tuple[str, ...], list[Result]] = {}
        self._asked: Counter[tuple[str, ...]] = Counter()
        for path in sorted(directory.glob("*.json")):
            record = read_json(path)
            result = Result(
                tuple(record["argv"]), record["rc"], record["stdout"], record["stderr"], record["duration_s"]
            )
            self._answers.setdefault(result.argv, []).append(result)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,  # noqa: ARG002 - a recording answers at once
        ok: Sequence[int] | None = (0,),
        stdin: str | None = None,  # noqa: ARG002 - part of the interface
    ) -> Result:
        """See Runner.run; an argv that was never recorded is a ParseError."""
        key = tuple(argv)
        answers = self._answers.get(key)
        if not answers:
            raise ParseError("no recording answers this command", source=str(self._directory), text=str(key))
        answer = answers[min(self._asked[key], len(answers) - 1)]
        self._asked[key] += 1
        return _checked(answer, ok)


def end(process: Process, grace_s: float, *, asking: signal.Signals = signal.SIGTERM) -> int:
    """Ask `process` to end, insist after `grace_s` seconds (SIGKILL), and return its exit status."""
    if process.poll() is None:
        process.send_signal(asking)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return exit_status(process.wait())


def exit_status(returncode: int) -> int:
    """Return the shell's exit status, 128 + signal for a killed program, for a Popen return code."""
    return returncode if returncode >= 0 else 128 - returncode


def _checked(result: Result, ok: Sequence[int] | None) -> Result:
    if ok is None or result.rc in ok:
        return result
    raise ToolError(result.argv, result.rc, result.stderr, stdout=result.stdout)


def _not_started(argv: Sequence[str], error: OSError) -> PioletError:
    """Return the error for a program that could not be started; 126 is the shell's status for that."""
    if isinstance(error, FileNotFoundError) and error.filename == argv[0]:
        return ToolMissing(argv[0])
    return ToolError(argv, 126, str(error), remedy="check the program's permissions and the working directory")


def _as_text(output: bytes | str | None) -> str:
    if isinstance(output, bytes):
        return output.decode("utf-8", "surrogateescape")
    return output or ""
