"""A repository on a git server: a shallow clone, a commit, a push that never forces.

Git asks nobody for a password here: it runs without a terminal, and what it needs it takes from the user's own
configuration (credential helper, SSH agent). A push that lost a race is an answer and not an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from piolet.core.errors import PioletError, Refused, ToolError, UsageError
from piolet.core.run import Result, Runner, SystemRunner

TIMEOUT_S = 120
REVISION_TIMEOUT_S = 5
"""A work tree on a slow file system is not worth more."""

ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_DIR": None, "GIT_WORK_TREE": None, "GIT_INDEX_FILE": None}
RUNNER = SystemRunner(env=ENVIRONMENT, own_session=True)

# Links are checked out as plain files, so that no path of a repository leads out of its clone; a name is never guessed.
_SETTINGS = ("core.symlinks=false", "core.autocrlf=false", "user.useConfigOnly=true", "advice.detachedHead=false")

# What git says of a push that came second: of a commit that it does not have (builtin/push.c, transport.c), or of the
# lock that two pushes wanted (refs.c, builtin/receive-pack.c).
_RACES = ("fetch first", "non-fast-forward", "failed to update ref", "cannot lock ref", "incorrect old value provided")


def revision(directory: Path) -> str:
    """Return the commit that `directory` is at, with ``-dirty`` if tracked files differ from it; "" if nobody knows."""
    argv = ["git", "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = RUNNER.run(argv, timeout=REVISION_TIMEOUT_S, ok=None)
    except PioletError:
        return ""
    return "" if found.rc else found.stdout.strip()


class Push(StrEnum):
    """How a push ended."""

    DONE = "done"
    RACED = "raced"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone of one branch of the repository at `url`, without its history unless it was asked for."""

    directory: Path
    url: str
    runner: Runner = field(default=RUNNER)

    def staged(self, path: Path) -> str:
        """Stage everything below `path`, relative to the clone and in it or gone from it; return the patch."""
        self._git("add", "--all", "--force", "--", str(path))
        return self._git("diff", "--cached", "--no-color", "--no-ext-diff", "--no-renames").stdout

    def commit(self, message: str) -> str:
        """Commit what is staged under the user's name, and return the commit.

        Raises:
            UsageError: git does not know the user's name.
            PioletError: git refused, for example in a hook of the user's.
        """
        try:
            self._git("commit", "--quiet", "--file", "-", stdin=message)
        except ToolError as error:
            if "tell me who you are" in error.stderr_tail:
                remedy = 'git config --global user.name "YOUR NAME"; git config --global user.email YOU@EXAMPLE.ORG'
                raise UsageError("git does not know whose commit this is", remedy=remedy) from error
            raise PioletError(f"git did not commit: {error.stderr_tail}", where=self.url) from error
        return self.head()

    def head(self) -> str:
        """Return the commit that the clone is at."""
        return self._git("rev-parse", "HEAD").stdout.strip()

    def commits(self, path: Path) -> list[tuple[str, int]]:
        """Return the commits that changed something below `path`, oldest first, with their Unix seconds.

        Only a clone with its history has more than the newest.
        """
        said = self._git("log", "--first-parent", "--reverse", "--format=%H %ct", "--", str(path)).stdout
        return [(commit, int(seconds)) for commit, _, seconds in (line.partition(" ") for line in said.splitlines())]

    def file(self, commit: str, path: Path) -> str | None:
        """Return the text of a file as it was in `commit`; None if it was not there."""
        answer = self._git("show", f"{commit}:{path}", ok=None)
        return None if answer.rc else answer.stdout

    def paths(self, pattern: str) -> list[Path]:
        """Return all paths that any commit of the history had and that match a git pattern, in order."""
        said = self._git("log", "--first-parent", "--format=", "--name-only", "--no-renames", "--", f":(glob){pattern}")
        return sorted({Path(line) for line in said.stdout.splitlines() if line})

    def push(self, branch: str) -> tuple[Push, str]:
        """Push HEAD to `branch`, never by force; return how that ended and, if refused, what the server said.

        Raises:
            PioletError: the server could not be asked.
        """
        argv = ("push", "--porcelain", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
        answer = self._git(*argv, ok=None)
        outcome, said = parse_push(answer)
        if answer.rc and outcome is Push.DONE:
            raise _unreachable(self.url, answer.stderr)
        return outcome, said

    def catch_up(self, branch: str) -> None:
        """Drop the commits that are only here, and take what `branch` has now."""
        try:
            self._git("fetch", "--quiet", "--depth", "1", "origin", f"refs/heads/{branch}")
        except ToolError as error:
            raise _unreachable(self.url, error.stderr_tail) from error
        self._git("reset", "--quiet", "--hard", "FETCH_HEAD")

    def _git(self, *arguments: str, ok: Sequence[int] | None = (0,), stdin: str | None = None) -> Result:
        argv = ["git", "-C", str(self.directory), *arguments]
        return self.runner.run(argv, timeout=TIMEOUT_S, ok=ok, stdin=stdin)


def clone(url: str, branch: str, directory: Path, runner: Runner = RUNNER, *, history: bool = False) -> Clone:
    """Clone `branch` of the repository at `url` into `directory`, which is made; with all commits if `history`.

    Raises:
        Refused: the address holds a password.
        PioletError: git cannot read the repository, or it has no such branch.
    """
    check_url(url)
    settings = [part for each in _SETTINGS for part in ("--config", each)]
    depth = [] if history else ["--depth", "1"]
    what = ["--quiet", *depth, "--single-branch", "--no-tags", "--branch", branch]
    try:
        runner.run(["git", "clone", *settings, *what, "--", url, str(directory)], timeout=TIMEOUT_S)
    except ToolError as error:
        if f"Remote branch {branch} not found" in error.stderr_tail:
            remedy = "name a branch that it has; an empty repository needs a first commit"
            raise PioletError(f'the repository has no branch "{branch}"', where=url, remedy=remedy) from error
        raise _unreachable(url, error.stderr_tail) from error
    return Clone(directory, url, runner)


def has_branch(url: str, branch: str, runner: Runner = RUNNER) -> bool:
    """Return whether the repository at `url` has `branch`; see `clone` for what it raises."""
    check_url(url)
    try:
        answer = runner.run(["git", "ls-remote", "--heads", "--", url, f"refs/heads/{branch}"], timeout=TIMEOUT_S)
    except ToolError as error:
        raise _unreachable(url, error.stderr_tail) from error
    return bool(answer.stdout)


def check_url(url: str) -> None:
    """Refuse an address that holds a password: commands, logs and configuration files would show it."""
    if "://" in url and urlsplit(url).password:
        remedy = "leave it out of the address, and let a credential helper of git know it"
        raise Refused("the address of the repository holds a password", remedy=remedy)


def check_branch(name: str, runner: Runner = RUNNER) -> None:
    """Raise a UsageError if `name` cannot be the name of a branch."""
    if runner.run(["git", "check-ref-format", f"refs/heads/{name}"], timeout=TIMEOUT_S, ok=None).rc:
        raise UsageError(f'"{name}" cannot be the name of a branch', remedy="choose one such as my-service")


def parse_push(answer: Result) -> tuple[Push, str]:
    r"""Parse what `git push --porcelain` says: a line "FLAG\tFROM:TO\tSUMMARY (REASON)" a branch; "!" is a refusal."""
    refusals = [line.split("\t")[2] for line in answer.stdout.splitlines() if line.startswith("!\t")]
    if not refusals:
        return Push.DONE, ""
    if any(race in refusals[0] for race in _RACES):
        return Push.RACED, refusals[0]
    said = [line.removeprefix("remote: ").strip() for line in answer.stderr.splitlines() if line.startswith("remote: ")]
    return Push.REFUSED, "; ".join([refusals[0], *filter(None, said)])


def _unreachable(url: str, stderr: str) -> PioletError:
    lines = [line for line in stderr.splitlines() if line.startswith(("fatal:", "error:", "remote:"))]
    said = " ".join(lines or stderr.splitlines()[-1:])
    remedy = f"see that this works, without a question: git ls-remote {url}"
    return PioletError(f"git cannot reach the repository: {said}", where=url, remedy=remedy)
