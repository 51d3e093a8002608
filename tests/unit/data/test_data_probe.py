"""`piolet data probe` on this machine's file systems: measured in pairs, and nothing left behind."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from piolet.cli.main import run_command
from piolet.core.errors import Refused, StorageError, UsageError
from piolet.data import probing
from piolet.data.probing import BLOCK_BYTES, PIECES, SLOW_S, Pair, Probe, probe

SIZE = 4 * BLOCK_BYTES


def test_each_round_is_a_pair(tmp_path):
    found = probe(tmp_path, size_bytes=SIZE, rounds=3)
    assert [len(pair.piece_s) for pair in found.pairs] == [PIECES] * 3
    assert all(pair.sequential_rate > 0 and pair.share > 0 for pair in found.pairs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refusal", [errno.EINVAL, None])
def test_without_direct_reads_the_kernel_is_asked_to_forget(tmp_path, monkeypatch, refusal):
    opened = os.open

    def without(path, flags, *mode):
        if refusal and flags & os.O_DIRECT:
            raise OSError(refusal, "no O_DIRECT")
        return opened(path, flags, *mode)

    monkeypatch.setattr(probing.os, "open", without)
    assert probe(tmp_path, size_bytes=SIZE, rounds=1).direct is (refusal is None)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_it_is_ended_while_it_writes(tmp_path, sent):
    script = (
        "import os, sys, pathlib; from piolet.data.probing import probe\n"
        f"probe(pathlib.Path(sys.argv[1]), size_bytes={SIZE}, rounds=1, report=lambda _: os.kill(os.getpid(), {sent}))"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=False)
    assert ended.returncode == -sent
    assert list(tmp_path.iterdir()) == []


def test_short_space_is_refused(tmp_path):
    with pytest.raises(Refused, match="wants twice its size"):
        probe(tmp_path, size_bytes=1 << 60, rounds=1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_refuses_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(probing.os, "write", full)
    with pytest.raises(StorageError, match="cannot probe"):
        probe(tmp_path, size_bytes=SIZE, rounds=1)
    assert list(tmp_path.iterdir()) == []


def test_less_than_a_block_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="smaller than one block"):
        probe(tmp_path, size_bytes=1, rounds=1)


@pytest.mark.parametrize(("piece_s", "slow"), [(0.0005, False), (SLOW_S, False), (0.0135, True)])
def test_the_verdict_is_that_of_the_median_piece(piece_s, slow):
    assert Probe((Pair(1e9, (0.0, piece_s, 1.0)),), direct=True).slow is slow


def test_the_verdict_names_its_reason(tmp_path, capsys):
    status = run_command(["data", "probe", str(tmp_path), "--size", "16MiB", "--rounds", "1"])
    said = capsys.readouterr().out
    assert ("slow at random" if status else "quick at random") in said
    assert "between disks (13.5 ms) and flash (0.5 ms)" in said
    run_command(["data", "probe", str(tmp_path), "--size", "16MiB", "--rounds", "2", "--format", "json"])
    assert len(json.loads(capsys.readouterr().out)["pairs"]) == 2


def test_a_size_that_is_none_is_an_error(tmp_path, capsys):
    assert run_command(["data", "probe", str(tmp_path), "--size", "much"]) == 2
    assert "--size" in capsys.readouterr().err
