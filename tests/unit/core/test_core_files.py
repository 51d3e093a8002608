from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from piolet.core.errors import ParseError, StorageError
from piolet.core.files import read_json, replacing, write_json, write_text

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system of its own, which needs root")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path) -> None:
    path = tmp_path / "new" / "job.json"
    write_json(path, {"name": "Müller", "n": 1})
    write_json(path, {"name": "Müller", "n": 2})
    assert read_json(path) == {"name": "Müller", "n": 2}
    assert "Müller" in path.read_text("utf-8")
    assert names(path.parent) == ["job.json"]


def test_the_mode_is_what_was_asked_for(tmp_path) -> None:
    write_text(tmp_path / "secret", "x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_bytes_that_are_not_utf8_survive_writing(tmp_path) -> None:
    write_text(tmp_path / "name", "caf\udce9")
    assert (tmp_path / "name").read_bytes() == b"caf\xe9"


def test_json_with_bytes_that_are_not_utf8_comes_back_as_it_was(tmp_path) -> None:
    write_json(tmp_path / "job.json", {"name": "caf\udce9 é"})
    assert read_json(tmp_path / "job.json") == {"name": "caf\udce9 é"}


def test_an_error_while_writing_keeps_the_old_content(tmp_path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(TypeError), replacing(path) as partial:
        partial.write_bytes(b"half" + None)  # type: ignore[operator]
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_value_that_json_cannot_say_leaves_the_old_file(tmp_path) -> None:
    write_json(tmp_path / "file", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"x": object()})
    assert read_json(tmp_path / "file") == 1


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "\x00\x00", "[1,]"])
def test_torn_json_is_a_parse_error_that_names_the_file(tmp_path, text) -> None:
    (tmp_path / "torn.json").write_text(text)
    with pytest.raises(ParseError) as caught:
        read_json(tmp_path / "torn.json")
    assert caught.value.where == str(tmp_path / "torn.json")


def test_json_that_is_not_text_is_a_parse_error(tmp_path) -> None:
    (tmp_path / "binary.json").write_bytes(b'{"a": \xff\xfe}')
    with pytest.raises(ParseError, match="not valid JSON"):
        read_json(tmp_path / "binary.json")


def test_a_missing_file_and_a_directory_are_storage_errors(tmp_path) -> None:
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(StorageError) as caught:
            read_json(path)
        assert caught.value.where == str(path)


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "file" / "below", "x")


def in_namespace(script: str, body: str) -> subprocess.CompletedProcess[str]:
    unshare = shutil.which("unshare") or "unshare"
    shell = f"{script}\nexec {sys.executable} -c '{body}'"
    return subprocess.run([unshare, "-m", "sh", "-ec", shell], capture_output=True, text=True, timeout=60, check=False)


@needs_root
def test_a_full_disk_keeps_the_old_file_and_leaves_no_partial_one(tmp_path) -> None:
    body = f"""
from pathlib import Path
from piolet.core.errors import StorageError
from piolet.core.files import write_text
path = Path("{tmp_path}/file")
write_text(path, "old")
try:
    write_text(path, "x" * (1 << 20))
except StorageError as error:
    print(error)
print(path.read_text(), sorted(entry.name for entry in path.parent.iterdir()))
"""
    done = in_namespace(f"mount -t tmpfs -o size=64k none {tmp_path}", body)
    assert done.stderr == ""
    assert "cannot write: No space left on device" in done.stdout
    assert "free space, or look at the quota" in done.stdout
    assert "old ['file']" in done.stdout


@needs_root
def test_a_read_only_directory_is_a_storage_error(tmp_path) -> None:
    body = f"""
from pathlib import Path
from piolet.core.errors import StorageError
from piolet.core.files import write_json
try:
    write_json(Path("{tmp_path}/file"), 1)
except StorageError as error:
    print(error)
"""
    done = in_namespace(f"mount -t tmpfs -o ro none {tmp_path}", body)
    assert done.stderr == ""
    assert "cannot write: Read-only file system" in done.stdout


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_in_the_middle_of_writing_keeps_the_old_file(tmp_path, sent) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"state": "old"})
    body = (
        "import sys, time; from pathlib import Path; from piolet.core.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); print('writing', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", body, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with child:
        assert child.stdout
        assert child.stdout.readline() == "writing\n"
        child.send_signal(sent)
    assert child.returncode != 0
    assert json.loads(path.read_text()) == {"state": "old"}
    left = [name for name in names(tmp_path) if name != "file.json"]
    if sent == signal.SIGINT:
        assert left == []
    else:  # nobody can clean up after SIGKILL; what is left is hidden and never read
        assert [name[0] + name.rpartition(".")[2] for name in left] == [".partial"]
