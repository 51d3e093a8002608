from __future__ import annotations

import json
from pathlib import Path

from piolet.core.nodeset import NodeSet
from piolet.logbook.environments import Verified, verified, verified_files
from piolet.logbook.layout import Logbook


def _row(node: str, value: str, by: str = "cxi") -> str:
    return json.dumps({"node": node, "by": by, "kind": "library", "value": value}) + "\n"


def test_what_held_is_told_once_with_its_nodes(tmp_path: Path) -> None:
    logbook = Logbook(tmp_path)
    assert verified(verified_files(logbook)) == ()
    logbook.verified.mkdir()
    (logbook.verified / "n1.jsonl").write_text(_row("n1", "libcxi.so.1") * 2 + _row("n1", "libm.so.6", "environment"))
    (logbook.verified / "n2.jsonl").write_text(_row("n2", "libcxi.so.1"))
    assert verified(verified_files(logbook)) == (
        Verified("cxi", "library", "libcxi.so.1", NodeSet("n[1-2]")),
        Verified("environment", "library", "libm.so.6", NodeSet("n1")),
    )


def test_lines_that_are_not_whole_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "n1.jsonl"
    path.write_bytes(b"\xff\n[]\n{}\n7\n" + _row("n[", "a").encode() + _row("n1", "b").encode() + b'{"node": "n1", "by')
    assert [held.value for held in verified([path, tmp_path / "gone.jsonl", tmp_path])] == ["b"]
