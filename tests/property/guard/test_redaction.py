"""Redaction holds for any text, and scanners of text survive any bytes."""

from hypothesis import given
from hypothesis import strategies as st
from leaking import SECRETS

from piolet.core.hints import hinting_lines
from piolet.core.redact import _all_secrets, redact, redacted, secrets
from piolet.guard.texts import in_lines, scan_log, scan_script, secrets_in

PIECES = st.sampled_from(
    [
        "token",
        "=",
        "--password ",
        '"',
        "'",
        "hf_" + "a1" * 16,
        "://",
        ":",
        "@",
        "\n",
        "eyJ",
        "[redacted: ",
        "]",
        "$",
        "abc123xyz",
    ]
)
TEXT = st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=30).map("".join))


@given(TEXT)
def test_twice_is_once_and_places_are_in_order(text):
    clean = redact(text, {})
    assert redact(clean, {}) == clean
    ends = 0
    for each in secrets(text):
        assert ends <= each.start < each.end <= len(text)
        ends = each.end


@given(
    st.lists(st.one_of(PIECES, st.sampled_from([*SECRETS, "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"]))).map("".join)
)
def test_to_look_first_where_a_secret_may_stand_misses_none(text):
    assert secrets(text) == _all_secrets(text)
    lines = text.split("\n")
    assert {line for line in lines if hinting_lines(line)} <= {text[begin:end] for begin, end in hinting_lines(text)}
    each = {risk for number, line in enumerate(lines, 1) for risk in secrets_in(line, "x", number)}
    assert "PRIVATE KEY" in text or set(in_lines(text, "x", 1)) == each


@given(
    st.text(alphabet=" \n\t.,;()", max_size=50), st.sampled_from(SECRETS), st.text(alphabet=" \n\t.,;()", max_size=50)
)
def test_a_secret_of_a_named_variable_is_taken_out_wherever_it_stands(before, secret, after):
    assert secret not in str(redacted({"message": before + secret + after}, {"X_TOKEN": secret}))


@given(st.binary(max_size=2000))
def test_any_bytes_are_scanned(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x.sh"
    path.write_bytes(content)
    assert scan_script(path).size_bytes == scan_log(path).size_bytes == len(content)
