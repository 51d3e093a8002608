"""YAML that YAML 1.1 and 1.2 read alike, whatever the strings hold: all are quoted that are not plain words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9./_-]*", re.ASCII)
_WORDS_WITH_A_MEANING = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "e"}


class _Dumper(yaml.SafeDumper):
    """Writes lists indented below their key, keys in the order given, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - PyYAML's interface
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - same
        super().increase_indent(flow, False)  # noqa: FBT003 - same


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_WITH_A_MEANING:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text)
    if "\n" in text and re.fullmatch(r"[\x20-\x7e\n]+", text) and not re.search(r"^\s|[ ]\n|\n\Z\n|\n\n\Z|[ ]\Z", text):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Dumper.add_representer(str, _string)


def dump(objects: Sequence[Any]) -> str:
    """Return `objects` as YAML documents."""
    return yaml.dump_all(
        objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000, explicit_start=True
    )
