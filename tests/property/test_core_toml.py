from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from piolet.core import toml

# Dots and brackets are the path's own notation, so keys are drawn without them, and never empty.
KEYS = st.text(
    st.characters(codec="utf-8", exclude_characters=".[]", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=5
)
SCALARS = st.one_of(st.integers(-9, 9), st.booleans(), st.text("aé€ #=[]{}'", max_size=4))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=2)),
    max_leaves=5,
)
TABLES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)
DOCUMENTS = st.lists(
    st.tuples(KEYS, st.sampled_from(["table", "elements"]), st.lists(TABLES, min_size=1, max_size=3)),
    max_size=3,
    unique_by=lambda section: section[0],
)


def written(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(item) for item in value) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def lines_and_places(document) -> tuple[list[str], dict[str, int]]:
    """Write the document line by line, noting where each table and each of its keys comes to stand."""
    lines: list[str] = []
    places: dict[str, int] = {}
    for name, kind, tables in document:
        for index, table in enumerate(tables if kind == "elements" else tables[:1]):
            head, path = (
                (f"[[{quoted(name)}]]", f"{name}[{index}]") if kind == "elements" else (f"[{quoted(name)}]", name)
            )
            lines.append(head)
            places[path] = len(lines)
            for key, value in table.items():
                lines += ["# comment", f"{quoted(key)} = {written(value)}"]
                places[f"{path}.{key}"] = len(lines)
    return lines, places


def paths(value: object, prefix: str) -> list[str]:
    if isinstance(value, dict):
        return [path for key, item in value.items() for path in (f"{prefix}.{key}", *paths(item, f"{prefix}.{key}"))]
    if isinstance(value, list):
        return [path for i, item in enumerate(value) for path in (f"{prefix}[{i}]", *paths(item, f"{prefix}[{i}]"))]
    return []


@given(DOCUMENTS, st.sampled_from(["\n", "\r\n"]))
def test_every_key_is_found_where_it_was_written(document, newline) -> None:
    lines, places = lines_and_places(document)
    parsed = toml.parse(newline.join(lines).encode(), Path("x.toml"))
    assert {path: parsed.positions[path].line for path in places} == places
    assert all(parsed.positions[path].column == 1 for path in places)


@given(TABLES)
def test_every_value_has_a_place_that_shows_it(table) -> None:
    for key, value in table.items():
        line = f"{quoted(key)} = {written(value)}"
        parsed = toml.parse(line.encode(), Path("x.toml"))
        assert parsed.data == {key: value}
        for path in (key, *paths(value, key)):
            position = parsed.positions[path]
            assert position.line == 1
            assert line[position.column - 1] not in " ,=]}"
