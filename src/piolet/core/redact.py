r"""Secrets in text: where they stand, and text without them. Everything that Piolet records goes through here.

Two kinds are known: tokens that tell what they are by their form (``hf_``, ``ghp_``, a private key, a password in an
address), and values that are given to a name which says so (``WANDB_API_KEY=...``, ``--password ...``). The values of
such variables of this process are known too, whatever their form. A reference such as ``$TOKEN`` or a path is none.

What is found is replaced by ``[redacted: KIND]``; doing so twice changes nothing. Every pattern is bounded, so that
no text takes more than linear time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piolet.core.hints import hints

LEAST_CHARS = 6
"""A shorter value of a name such as `token` is a setting, not a secret."""

_LEAST_KNOWN_CHARS = 8
_MARK = "[redacted: "
_NAMED = "secret"

_FORMS = {
    "aws-access-key": r"(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "github-token": r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
    "gitlab-token": r"gl(?:pat|dt|rt|ptt|ft|cbt)-[\w-]{20,255}",
    "hugging-face-token": r"(?:hf|api_org)_[A-Za-z0-9]{30,64}",
    "anthropic-key": r"sk-ant-[\w-]{20,255}",
    "openai-key": r"sk-(?:proj-|svcacct-|admin-|None-)?[\w-]{20,255}",
    "nvidia-key": r"nvapi-[\w-]{40,255}",
    "wandb-key": r"wandb_v1_[\w-]{40,255}",
    "slack-token": r"xox[abposr]-[\w-]{10,255}|xapp-[\w-]{20,255}",
    "google-key": r"AIza[\w-]{35}",
    "pypi-token": r"pypi-AgEIcHlwaS5vcmc[\w-]{50,255}",
    "npm-token": r"npm_[A-Za-z0-9]{36}",
    "docker-token": r"dckr_(?:pat|oat)_[\w-]{20,255}",
    "stripe-key": r"[rs]k_live_[A-Za-z0-9]{20,255}",
    "age-key": r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    "jwt": r"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}",
}
"""Tokens with a form of their own, as their issuers document it; each begins where a word does."""

TOKENS = frozenset(_FORMS)
"""The kinds of secrets that are known by their form alone."""

_KEYWORD = (
    r"(?:api[_-]?key|secret[_-]?(?:access[_-]?)?key|access[_-]?key|private[_-]?key|encryption[_-]?key"
    r"|secret|token|passw(?:or)?d|passphrase|credentials?)"
)
_NAME = rf"(?<![A-Za-z0-9_-])(?P<name>[A-Za-z0-9_.-]{{0,48}}?{_KEYWORD})"
_QUOTED = r"(?:\"(?P<double>[^\"\n]{6,4096})\"|'(?P<single>[^'\n]{6,4096})')"
_BARE = r"(?P<bare>[^\s\"'#;,&|<>(){}\[\]`]{6,4096}+)"

_ASSIGNED = (
    # a shell's or an .env file's assignment, also as `set -x` prints it, and an argument of env(1)
    (
        rf"(?m)^[ \t+]*(?:(?:export|declare|typeset|readonly|local|setenv|env|ENV|ARG|-x|-e)[ \t]+){{0,3}}"
        rf"(?P<name>[A-Za-z_][\w.-]{{0,48}}?{_KEYWORD})=(?:{_QUOTED}|{_BARE})"
    ),
    # --password VALUE, --api-key=VALUE
    rf"(?<![\w-])--(?P<name>[A-Za-z0-9_-]{{0,48}}?{_KEYWORD})(?:=|[ \t]+)(?:{_QUOTED}|{_BARE})",
    # JSON, TOML, YAML, Python: a quoted value
    rf"(?i:{_NAME})[\"']?\s{{0,8}}[:=]\s{{0,8}}{_QUOTED}",
)
_LOOSE = rf"(?i:{_NAME})[\"']?[ \t]{{0,8}}[:=][ \t]{{0,8}}{_BARE}(?![(\[])"
"""A bare value in YAML, in a log, within a command: many of these are code, so it must look like a key."""

_CARRIED = {
    "password": (
        r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/@\"']{0,128}:(?P<bare>[^\s/@\"'$<{]{3,256})@",
        r"(?<![\w-])(?:curl|wget)\b[^\n|;]{0,256}?\s(?:-u|--user)[ =]?[\"']?[\w.@-]{1,64}:(?P<bare>[^\s\"'$]{3,256})",
        r"(?<![\w-])sshpass[ \t]+-p[ \t]*[\"']?(?P<bare>[^\s\"'$]{3,256})",
    ),
    "authorization": (
        r"(?i:authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|token)[ \t]{1,4})(?P<bare>[\w.~+/=-]{8,4096})",
    ),
    "azure-key": (r"AccountKey=(?P<bare>[A-Za-z0-9+/=]{40,128})",),
    "docker-login": (r"\"auth\"\s{0,4}:\s{0,4}\"(?P<bare>[A-Za-z0-9+/=]{12,4096})\"",),
    "private-key": (r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----(?P<bare>(?:(?!-----)[\s\S]){1,16384})",),
}

_KNOWN_FORMS = re.compile(
    "|".join(f"(?P<{kind.replace('-', '_')}>(?<![A-Za-z0-9_-])(?:{form}))" for kind, form in _FORMS.items())
)
_KNOWN_NAMES = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _ASSIGNED)
_LOOSE_NAMES = re.compile(_LOOSE)
_KNOWN_CARRIERS = tuple((kind, re.compile(pattern)) for kind, patterns in _CARRIED.items() for pattern in patterns)
_SECRET_NAME = re.compile(rf"(?i:-{{0,2}}[\w.\[\]-]{{0,64}}?{_KEYWORD})")

_REFERENCE = re.compile(r"[$%<*@{\[]|\\\$|(?:~|\.{1,2})?/[\w./-]*$|(?i:none|null|true|false|x{3,}|changeme|your[_-])")
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+$|\d{1,7}(?:\.\d*)?$")


Known = Sequence[tuple[str, str]]
"""Names of variables that hold secrets, and their values."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of `kind` at [start, end) of a text, in characters; `name` is what it is given to, if anything."""

    kind: str
    start: int
    end: int
    name: str = ""


def secrets(text: str) -> list[Secret]:
    """Return the secrets of `text` in order, without overlaps; a form tells more of a secret than its name does."""
    return _all_secrets(text) if hints(text) else []


def _all_secrets(text: str) -> list[Secret]:
    found = sorted({*_by_form(text), *_by_carrier(text), *_by_name(text)}, key=_most_telling)
    apart: list[Secret] = []
    for each in found:
        if not apart or each.start >= apart[-1].end:
            apart.append(each)
    return apart


def names_secret(name: str) -> bool:
    """Return whether a variable, key or option of this name holds a secret."""
    return bool(_SECRET_NAME.fullmatch(name))


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return `text` with every secret replaced; `environ` (this process's by default) tells values to look for."""
    return _redact(text, _values(os.environ if environ is None else environ))


def _redact(text: str, known: Known) -> str:
    for name, value in known:
        text = text.replace(value, f"{_MARK}{name}]")
    while found := secrets(text):  # what one leaves may show another, so until there is none
        for each in reversed(found):
            text = f"{text[: each.start]}{_MARK}{each.kind}]{text[each.end :]}"
    return text


def redacted(value: Any, environ: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with the secrets of all its text replaced, also those that only their neighbour names.

    A neighbour is the key of a mapping, the `key` of a mapping that has a `value`, or the option before an argument.
    """
    return _redacted(value, _values(os.environ if environ is None else environ))


def _redacted(value: Any, known: Known) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return _redact(value, known)
    if isinstance(value, Mapping):
        named = str(value.get("key", ""))
        return {key: _neighbour(str(key) if key != "value" else named, each, known) for key, each in value.items()}
    if isinstance(value, list | tuple):
        before = ("", *(each if isinstance(each, str) and each.startswith("-") else "" for each in value))
        return type(value)(_neighbour(name, each, known) for name, each in zip(before, value, strict=False))
    return value


def _neighbour(name: str, value: Any, known: Known) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str) and names_secret(name) and _plausible(name, value):
        return f"{_MARK}{_NAMED}]"
    return _redacted(value, known)


def _values(environ: Mapping[str, str]) -> Known:
    """Return name and value of the variables that hold secrets, the longest value first."""
    found = [
        (name, value)
        for name, value in environ.items()
        if len(value) >= _LEAST_KNOWN_CHARS and names_secret(name) and _plausible(name, value)
    ]
    return sorted(found, key=lambda pair: -len(pair[1]))


def _most_telling(secret: Secret) -> tuple[int, bool, int]:
    return secret.start, secret.kind == _NAMED, -secret.end


def _by_form(text: str) -> Iterator[Secret]:
    for match in _KNOWN_FORMS.finditer(text):
        yield Secret(str(match.lastgroup).replace("_", "-"), *match.span())


def _by_carrier(text: str) -> Iterator[Secret]:
    for kind, pattern in _KNOWN_CARRIERS:
        for match in pattern.finditer(text):
            if not match["bare"].startswith(_MARK[:-1]):
                yield Secret(kind, *match.span("bare"))


def _by_name(text: str) -> Iterator[Secret]:
    for pattern in _KNOWN_NAMES:
        for match in pattern.finditer(text):
            group = str(match.lastgroup)
            if _plausible(match["name"], match[group]):
                yield Secret(_NAMED, *match.span(group), match["name"])
    for match in _LOOSE_NAMES.finditer(text):
        if _plausible(match["name"], match["bare"]) and _looks_random(match["bare"]):
            yield Secret(_NAMED, *match.span("bare"), match["name"])


def _plausible(name: str, value: str) -> bool:
    """Return whether a value given to a secret's name may be one: no reference, path, placeholder, code or number."""
    if len(value) < LEAST_CHARS or value.startswith(_MARK[:-1]) or value.lower().replace("-", "_") in name.lower():
        return False
    path_like_key = len(value) == 40 and value[:1] == "/"  # noqa: PLR2004 - a secret key of AWS is base64, and may begin so
    return path_like_key or not (_REFERENCE.match(value) or _CODE.match(value))


def _looks_random(value: str) -> bool:
    return any(each.isdigit() for each in value) and any(each.isalpha() for each in value)
