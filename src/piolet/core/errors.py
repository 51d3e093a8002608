"""The one tree of errors that Piolet raises; the command line turns each into one clear message.

    PioletError                exit 3   something outside the user's control failed
    +-- UsageError             exit 2   what the user asked for cannot be done as asked
    |   +-- ConfigError        exit 2   a file or value the user wrote is wrong (path, key, line)
    |   +-- Refused            exit 2   understood, but refused for a reason (limits, safety)
    +-- StorageError           exit 3   a file system said no: full, read-only, gone
    +-- ToolMissing            exit 3   an outside program is not installed
    +-- ToolTimeout            exit 3   an outside program did not answer in time
    +-- ToolError              exit 3   an outside program failed (argv, status, stderr tail)
    +-- ParseError             exit 3   an outside program answered with something unreadable

Every message says what happened, where, and what to do next. A sick node is not an error but a Finding.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_STDERR_TAIL_CHARS = 2000


class PioletError(Exception):
    """What happened, where (optional) and what to do next (optional)."""

    exit_status = 3

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  next:  {self.remedy}")
        return "\n".join(lines)


class UsageError(PioletError):
    """The request itself cannot be carried out."""

    exit_status = 2


class ConfigError(UsageError):
    """A file that the user wrote is wrong: which file, which key, which line and column (from 1)."""

    def __init__(
        self,
        what: str,
        *,
        path: Path | str,
        key: str = "",
        line: int | None = None,
        column: int | None = None,
        remedy: str = "",
    ) -> None:
        self.path = str(path)
        self.key = key
        self.line = line
        self.column = column
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(what, where=f"{place} ({key})" if key else place, remedy=remedy)


class Refused(UsageError):  # noqa: N818 - the name of the outcome, as users read it
    """Understood, and refused for a stated reason."""


class StorageError(PioletError):
    """A file system refused a read or a write."""


class ToolMissing(PioletError):  # noqa: N818 - reads as the fact it states
    """An outside program is not installed or not on PATH."""

    def __init__(self, tool: str, *, remedy: str = "") -> None:
        self.tool = tool
        super().__init__(
            f"{tool} was not found",
            where="PATH of this process",
            remedy=remedy or f"install {tool}, or load the module that provides it",
        )


class ToolTimeout(PioletError):  # noqa: N818 - reads as the fact it states
    """An outside program did not finish in time; `stdout` keeps what it had said."""

    def __init__(self, argv: Sequence[str], timeout_s: float, *, stdout: str = "", stderr: str = "") -> None:
        self.argv = tuple(argv)
        self.timeout_s = timeout_s
        self.stdout = stdout
        self.stderr = stderr
        super().__init__(
            f"{argv[0]} did not answer within {timeout_s:g} s",
            where=shlex.join(argv),
            remedy="try the command by hand; if the service behind it is slow, raise the time-out",
        )


class ToolError(PioletError):
    """An outside program failed."""

    def __init__(self, argv: Sequence[str], rc: int, stderr: str = "", *, stdout: str = "", remedy: str = "") -> None:
        self.argv = tuple(argv)
        self.rc = rc
        self.stdout = stdout
        self.stderr_tail = stderr.strip()[-_STDERR_TAIL_CHARS:]
        said = f": {self.stderr_tail}" if self.stderr_tail else ""
        super().__init__(f"{argv[0]} failed with status {rc}{said}", where=shlex.join(argv), remedy=remedy)


class ParseError(PioletError):
    """An outside program's answer has a form that its parser does not know."""

    def __init__(self, what: str, *, source: str, text: str = "") -> None:
        self.source = source
        self.text = text
        shown = f" near {text[:120]!r}" if text else ""
        super().__init__(
            f"{what}{shown}",
            where=source,
            remedy="report this with the text above; the tool's version may be newer than its parser",
        )


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""The errors of a write that the file system does not take."""


_REMEDIES = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG), "check the path"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "check its permissions, and those of the directories above it"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space, or look at the quota (df, quota)"),
    errno.EROFS: "choose a place that can be written",
}


@contextmanager
def storage_errors(path: Path | str, doing: str) -> Iterator[None]:
    """Translate an OSError raised while `doing` something at `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cannot {doing}: {reason}",
            where=str(error.filename or path),
            remedy=_REMEDIES.get(error.errno or 0, "see whether the file system answers (df, mount), then try again"),
        ) from error
