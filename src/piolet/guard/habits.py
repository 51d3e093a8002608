"""Habits of job scripts that leak: what is printed, exported, opened to all. Pure; reads a shell script line by line.

Not a shell: a line is cut into commands at ; & and |, comments are left out, and each command is looked at by itself.
What a script builds with eval or reads from elsewhere is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from piolet.core.redact import names_secret, redact
from piolet.guard import rules
from piolet.guard.finding import Rule

_SUFFIXES = (".sh", ".bash", ".zsh", ".sbatch", ".slurm", ".job")
_HEAD = re.compile(r"#!.*\b(?:ba|z|k|da)?sh\b|(?:#.*\n){0,40}#SBATCH\b")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"")
_SEPARATOR = re.compile(r"\|\||&&|[;|&\n]|\$\(|`|\bthen\b|\bdo\b|\belse\b")
_PREFIX = re.compile(r"(?:\s*(?:\w+=\S*|sudo|srun(?:\s+-\S+)*|exec|time|nohup|command)\s+)*")
_VARIABLE = re.compile(r"\$\{?(\w+)(?::?[-=?]|\}|\b)")
_ASSIGNED = re.compile(r"(?:^|\s)([A-Za-z_]\w*)=")
_LOADER = re.compile(r"(?:^|\s|\")(LD_PRELOAD|LD_AUDIT|PYTHONSTARTUP|BASH_ENV)\"?\s*[:=]\s*[\"']?[^\s\"']")

_COMMANDS: tuple[tuple[Rule, re.Pattern[str]], ...] = tuple(
    (rule, re.compile(pattern))
    for rule, pattern in (
        (rules.TRACE, r"set\s+(?:-\w*\s+)*-\w*x\w*\b|set\s.*-o\s+xtrace|(?:ba|z|k|da)?sh\s+(?:-\w+\s+)*-\w*x\w*\b"),
        (rules.PRINTS_ITSELF, r"(?:cat|head|tail|less|tee)\s.*[\"']?(?:\$0\b|\$\{0\}|\$\{?BASH_SOURCE)"),
        (rules.PRINTS_ITSELF, r"scontrol\s+write\s+batch_script|scontrol\s+show\s+job\s.*-dd"),
        (rules.PRINTS_ENVIRONMENT, r"(?:printenv|env|set|export(?:\s+-p)?|declare\s+-[xp]+|compgen\s+-e)\s*(?:>.*)?$"),
        (rules.PRINTS_ENVIRONMENT, r"python\S*\s.*print\(.*os\.environ\b(?!\[|\.get)"),
        (rules.OPEN_TO_ALL, r"chmod\s.*(?:\b[0-7]?[0-7][0-7][2367]\b|\b[ugo]*[ao][ugo]*[+=]\w*w|\s\+\w*w)"),
        (rules.OPEN_TO_ALL, r"umask\s+0?0?00?\b|(?:setfacl)\s.*\bo(?:ther)?::?\w*w"),
        (rules.UNVERIFIED, r"curl\b.*\s(?:-\w*k\w*\b|--insecure)|wget\s.*--no-check-certificate"),
        (rules.UNVERIFIED, r"pip\S*\s.*--trusted-host|git\s.*http\.sslVerify=false|conda\s.*ssl_verify\s+false"),
        (rules.OPEN_SERVER, r"jupyter\S*\s.*(?:token|password)=(?:''|\"\"|\s|$)|jupyter\S*\s.*disable_check_xsrf=True"),
    )
)
_PIPED_SHELL = re.compile(r"\b(?:curl|wget)\b[^;\n]*\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b")
_PRINTS = re.compile(r"(?:echo|printf|logger|print)\b")
_ARGUMENT = re.compile(r"--[\w-]+[= ][\"']?\$\{?(\w+)")


def is_shell(text: str, path: str) -> bool:
    """Return whether a file is a shell's or a job script, by its name or its head."""
    return path.endswith(_SUFFIXES) or bool(_HEAD.match(text))


def habits(text: str) -> Iterator[tuple[int, Rule, str]]:
    """Yield line, rule and what was seen for each leaking habit of a shell script."""
    for number, line in _lines(text):
        if _PIPED_SHELL.search(line):
            yield number, rules.UNVERIFIED, "a download is piped into a shell"
        for command in _commands(line):
            for rule in _habits_of(command):
                yield number, rule, f"`{_shown(command)}`"
    first = text.partition("\n")[0]
    if first.startswith("#!") and re.search(r"sh\s+-\w*x", first):
        yield 1, rules.TRACE, "the shell is started with -x"


def loaders(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each variable that makes the loader or an interpreter run code."""
    for number, line in _lines(text):
        for match in _LOADER.finditer(line):
            yield number, match[1]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield logical lines without comments, each with the number of its first line; a backslash joins two."""
    joined, first = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        first = first if joined else number
        joined += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield first, _COMMENT.sub("", joined)
            joined = ""
    if joined:
        yield first, _COMMENT.sub("", joined)


def _commands(line: str) -> Iterator[str]:
    """Cut a line into commands; what stands in quotes is not cut."""
    hidden = _QUOTED.sub(lambda found: "\0" * len(found[0]), line)
    begin = 0
    for cut in [*_SEPARATOR.finditer(hidden), None]:
        command = line[begin : cut.start() if cut else len(line)].strip(" \t(){}")
        begin = cut.end() if cut else begin
        if command:
            yield command


def _habits_of(command: str) -> Iterator[Rule]:
    bare = command[_PREFIX.match(command).end() :] if _PREFIX.match(command) else command  # type: ignore[union-attr] # it matches the empty text
    for rule, pattern in _COMMANDS:
        if pattern.match(bare):
            yield rule
    if _PRINTS.match(bare) and any(names_secret(name) for name in _VARIABLE.findall(bare)):
        yield rules.PRINTS_SECRET
    if bare.startswith("export ") and any(names_secret(name) for name in _ASSIGNED.findall(bare)):
        yield rules.EXPORTED
    if any(names_secret(name) for name in _ARGUMENT.findall(bare)):
        yield rules.ARGUMENT


def _shown(command: str) -> str:
    text = redact(command)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line of a table
