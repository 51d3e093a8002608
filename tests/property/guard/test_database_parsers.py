"""Any bytes, and any damage to a sound answer, end in an error of Piolet's own, or in a value."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import struct
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ParseError
from piolet.tools import rpmdb, scanners, sockets
from piolet.tools.rpmdb import Installed


def header(**values: str | int) -> bytes:
    """A header as rpm writes it, of tags by number (t1000=...)."""
    entries, data = b"", b""
    for name, value in values.items():
        kind, content = (6, value.encode() + b"\0") if isinstance(value, str) else (4, struct.pack(">I", value))
        entries += struct.pack(">IIII", int(name[1:]), kind, len(data), 1)
        data += content
    return struct.pack(">II", len(values), len(data)) + entries + data


def database(*blobs: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as made:
        made.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        made.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in blobs])
        made.commit()
        return made.serialize()


BASH = header(t1000="bash", t1001="5.1.8", t1002="6.el9", t1022="x86_64", t1044="bash-5.1.8-6.el9.src.rpm")
PERL = header(t1000="perl-libs", t1001="5.32.1", t1002="481.el9", t1003=4, t1044="perl-5.32.1-481.el9.src.rpm")
SOUND = database(BASH, PERL, header(t1000="gpg-pubkey", t1001="1", t1002="1"))
TRIVY, GRYPE = scanners.SCANNERS
ANSWERS = {
    TRIVY: {"Results": [{"Vulnerabilities": [{"VulnerabilityID": "C", "PkgName": "p", "InstalledVersion": "1"}]}]},
    GRYPE: {"matches": [{"vulnerability": {"id": "C"}, "artifact": {"name": "p", "version": "1"}}]},
}
JSON = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["Results", "matches", "Vulnerabilities", "vulnerability", "artifact", "id", "fix"]), inner
), max_leaves=8)  # fmt: skip


def test_a_sound_database_is_read():
    assert rpmdb.packages(SOUND, "x") == [
        Installed("bash", "5.1.8-6.el9", "x86_64", "bash-5.1.8-6.el9.src.rpm"),
        Installed("perl-libs", "4:5.32.1-481.el9", "", "perl-5.32.1-481.el9.src.rpm"),
    ]


@given(st.data())
def test_any_damage_to_a_database(data):
    content = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ParseError):
        rpmdb.packages(bytes(content[: data.draw(st.integers(0, len(content)))]), "x")


@given(st.binary(max_size=300))
def test_any_header(blob):
    with contextlib.suppress(ParseError):
        rpmdb.packages(database(blob), "x")


def test_a_table_that_is_a_view_made_by_somebody_does_not_run_for_ever():
    with closing(sqlite3.connect(":memory:")) as made:
        made.execute(
            "CREATE VIEW Packages AS"
            " WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT sum(x) AS blob FROM n"
        )
        content = made.serialize()
    with contextlib.suppress(ParseError):
        rpmdb.packages(content, "x")


@given(st.text(max_size=300))
def test_any_table_of_sockets(text):
    with contextlib.suppress(ParseError):
        sockets.parse(text)


@given(st.sampled_from(scanners.SCANNERS), JSON)
def test_any_answer_of_a_scanner(scanner, value):
    with contextlib.suppress(ParseError):
        scanners.parse(scanner, json.dumps(value))
    assert len(scanners.parse(scanner, json.dumps(ANSWERS[scanner]))) == 1
