"""Expansion of ${VAR}, ${VAR:-default} and $${VAR}, and splitting at colons that are not inside them.

Expansion happens once, on the submitting host, after inheritance. A `$` that is not before `{` is itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piolet.env.edf import Value

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}|(?P<bad>\$\{)")
_FIELD = re.compile(r"(?:\$\$\{[^}]*\}|\$\{[^}]*\}|[^:])*")


class ExpansionError(ValueError):
    """A text cannot be expanded; the message says why, `remedy` what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(what)


def expanded(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` with its references replaced.

    Raises:
        ExpansionError: a variable is not defined and has no default, or a `${` is not a reference.
    """

    def replacement(match: re.Match[str]) -> str:
        if match["bad"]:
            raise ExpansionError(
                f"{text[match.start() :][:40]!r} is not a reference to a variable",
                "write ${NAME} or ${NAME:-default}; $${NAME} stands for the text ${NAME}",
            )
        if not match["name"]:
            return "${"
        value = environ.get(match["name"])
        if value is None or (not value and match["default"] is not None):
            value = match["default"]
        if value is None:
            raise ExpansionError(
                f"variable {match['name']} is not defined",
                f"set it, or write ${{{match['name']}:-default}}",
            )
        return value

    return _REFERENCE.sub(replacement, text)


def fields(text: str) -> list[str]:
    """Split `text` at colons; a colon inside ${...} does not count."""
    found = []
    position = 0
    while True:
        match = _FIELD.match(text, position)
        end = match.end() if match else position
        found.append(text[position:end])
        if end == len(text):
            return found
        position = end + 1


def expand(value: Value, environ: Mapping[str, str]) -> str:
    """Return the text of `value` with its references replaced; an error points at the value."""
    try:
        return expanded(value.value, environ)
    except ExpansionError as error:
        raise value.error(str(error), error.remedy) from error
