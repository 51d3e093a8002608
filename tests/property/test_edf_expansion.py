"""Expansion of ${VAR} and splitting at colons."""

from hypothesis import given
from hypothesis import strategies as st

from piolet.env.expanding import expanded, fields

plain = st.text(st.characters(exclude_characters="$:{}"), max_size=20)
names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)


@given(st.text(max_size=60))
def test_splitting_loses_nothing(text):
    assert ":".join(fields(text)) == text


@given(st.lists(st.one_of(plain, names.map("${{{}:-a:b}}".format)), min_size=1, max_size=5))
def test_a_colon_in_a_reference_does_not_split(parts):
    assert fields(":".join(parts)) == parts


@given(plain, names, st.text(max_size=20), plain)
def test_a_value_is_put_in_once(before, name, value, after):
    assert expanded(f"{before}${{{name}}}{after}", {name: value}) == f"{before}{value}{after}"


@given(plain, names, plain)
def test_defaults(before, name, default):
    assert expanded(f"{before}${{{name}:-{default}}}", {}) == before + default


@given(st.text(st.characters(exclude_characters="$"), max_size=40))
def test_text_without_references_is_itself(text):
    assert expanded(text, {}) == text


@given(names)
def test_literal(name):
    assert expanded(f"$${{{name}}}", {name: "never"}) == f"${{{name}}}"
