"""Where in a text a secret may stand: quick, for those who read much, and never missing one.

A regular expression of many alternatives tries them all at each character; to look for one literal after the other
costs a thirtieth of that. What follows a literal that other words hold too (`tokens/s`) is looked at where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_AT_WORD = r"(?<![A-Za-z0-9_-])"
_BEGINNINGS = (
    "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat", "glpat-", "gldt-", "glrt-", "glptt-", "glft-",
    "glcbt-", "hf_", "api_org", "sk-", "nvapi-", "wandb_v1", "xox", "xapp-", "AIza", "pypi-", "npm_", "dckr_",
    "sk_live_", "rk_live_", "AGE-SECRET", "eyJ", "curl", "wget", "sshpass",
)  # fmt: skip
"""Tokens with a form of their own, and commands, begin where a word does."""

_GIVEN = r"s?[\"']?\s{0,8}[:=\s]"
_NAMES = ("key", "secret", "token", "passwd", "password", "passphrase", "credential")
"""Ends of names, in any case, that something is given to."""

_SIGNS = (
    *((literal, re.compile(_AT_WORD + re.escape(literal))) for literal in _BEGINNINGS),
    ("://", re.compile(r"://[^\s:/@\"']{0,128}:[^\s/@\"'$<{]{3,256}@")),
    ("PRIVATE KEY", re.compile("PRIVATE KEY")),
)
_SIGNS_OF_ANY_CASE = (
    *((name, re.compile(f"(?i:{name}){_GIVEN}")) for name in _NAMES),
    ("authori", re.compile("(?i:authori)")),
    ('"auth"', re.compile('(?i:"auth")')),
)


def hints(text: str) -> bool:
    """Return whether `text` may hold a secret at all."""
    return next(_places(text), None) is not None


def hinting_lines(text: str) -> list[tuple[int, int]]:
    """Return begin and end of each line of `text` in which a secret may stand, in order."""
    found = {text.rfind("\n", 0, at) + 1 for at in _places(text)}
    return [(begin, end if (end := text.find("\n", begin)) >= 0 else len(text)) for begin in sorted(found)]


def _places(text: str) -> Iterator[int]:
    """Yield where signs stand, of each sign one a line."""
    for literal, sign in _SIGNS:
        yield from _standing(text, text, literal, sign)
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter whose lower case is two; the places would not be those of the text
        lowered = text.translate(_LOWER)
    for literal, sign in _SIGNS_OF_ANY_CASE:
        yield from _standing(text, lowered, literal, sign)


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def _standing(text: str, searched: str, literal: str, sign: re.Pattern[str]) -> Iterator[int]:
    at = searched.find(literal)
    while at >= 0:
        if sign.match(text, at):
            yield at
            at = text.find("\n", at)
            if at < 0:
                return
        at = searched.find(literal, at + 1)
