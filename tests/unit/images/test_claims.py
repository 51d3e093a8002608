"""One import however many ask; owners that die, sleep or fail."""

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import asdict, replace

import oci_images
import pytest
from oci_images import entry, layer

from piolet.core.errors import PioletError
from piolet.env import claims


def ask(directory, results, make, **options):
    ready = directory / "ready"
    options = {"timeout_s": 30.0} | options
    results.append(
        claims.once(directory / "c", "k", lambda: ready.read_text() if ready.exists() else None, make, **options)
    )


def test_threads_make_it_once(tmp_path):
    made, results = [], []

    def make(claim):
        made.append(claim)
        time.sleep(0.3)
        (tmp_path / "ready").write_text("x")
        return "x"

    threads = [threading.Thread(target=ask, args=(tmp_path, results, make)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), results) == (1, ["x"] * 16)
    assert not list((tmp_path / "c").iterdir())


def test_waiters_fail_as_the_owner_does_and_the_next_one_tries_again(tmp_path):
    entered = threading.Event()
    errors = []

    def fail(_):
        entered.set()
        time.sleep(0.6)
        raise PioletError("the registry refused")

    def owner():
        try:
            ask(tmp_path, [], fail)
        except PioletError as error:
            errors.append(error)

    thread = threading.Thread(target=owner)
    thread.start()
    entered.wait()
    with pytest.raises(PioletError, match="the registry refused"):
        ask(tmp_path, [], lambda _: "never")
    thread.join()
    assert len(errors) == 1
    results = []
    ask(tmp_path, results, lambda _: "made")
    assert results == ["made"]


def _foreign(tmp_path, **changes):
    state = replace(claims.own_state(), boot="another", host="far", **changes)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/k.7.json").write_text(json.dumps(asdict(state)))


def test_an_owner_elsewhere_is_dead_when_nothing_changes(tmp_path):
    _foreign(tmp_path)
    results = []
    ask(tmp_path, results, lambda claim: claim.path.name, stale_s=0.3)
    assert results == ["k.8.json"]


def test_an_owner_elsewhere_is_waited_for_until_time_is_over(tmp_path):
    _foreign(tmp_path, doing="downloading")
    shown = []
    with pytest.raises(PioletError) as caught:
        ask(tmp_path, [], lambda _: "never", timeout_s=0.5, show=shown.append)
    assert caught.value.what == "the image was not imported within 0.5 s: downloading"
    assert caught.value.where == f"process {os.getpid()} on far"
    assert shown[0].doing == "downloading"


def test_a_dead_owner_here_is_noticed_at_once(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "c").mkdir()
    state = replace(claims.own_state(), pid=dead.pid, started="1")
    (tmp_path / "c/k.1.json").write_text(json.dumps(asdict(state)))
    results = []
    ask(tmp_path, results, lambda _: "made", timeout_s=0)
    assert results == ["made"]


def _campaign(home, name, processes, kills):
    """Start many pulls of one image, kill some that work, and return the statuses of the others."""
    (home.path / "t.toml").write_text(f'image = "{name}"\n')
    started = [home.start("compile", "./t.toml") for _ in range(processes)]
    killed = set()
    while len(killed) < kills and any(process.poll() is None for process in started):
        for path in home.store.claims.glob("*.json") if home.store.claims.is_dir() else ():
            try:
                pid = json.loads(path.read_text())["pid"]
            except FileNotFoundError:
                continue
            if pid not in killed and len(killed) < kills:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    ended = {process.pid: process.communicate() for process in started}
    for process in started:
        if process.pid not in killed:
            assert process.returncode == 0, ended[process.pid]
    return killed


def _pushed(home, registry, megabytes=4):
    home.log_in(registry)
    made = oci_images.layout(home.path / "made", [layer(entry("data", os.urandom(megabytes << 20)))])
    return registry.push(made, f"team/{home.path.name.replace('_', '-').lower()}:1")


@pytest.mark.parametrize(
    ("processes", "kills"),
    [(8, 2), pytest.param(64, 0, marks=pytest.mark.slow), pytest.param(64, 12, marks=pytest.mark.slow)],
)
def test_many_processes_import_once_whoever_is_killed(home, registry, processes, kills):
    name = _pushed(home, registry)
    repository = name.partition("/")[2].rpartition(":")[0]
    killed = _campaign(home, name, processes, kills)
    (image,) = home.store.images()
    subprocess.run(["unsquashfs", "-lls", image.path], check=True, capture_output=True)
    assert 1 <= registry.asked(f"{repository}/blobs/") <= 2 * (1 + len(killed))
    assert not list(home.store.claims.iterdir())
