"""`piolet data check` on real directories, and its judgements on made facts."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from piolet.cli.main import run_command
from piolet.core.errors import ConfigError, UsageError
from piolet.core.nouns import Severity
from piolet.data import hubcache, scanning, site, walking
from piolet.data.advice import STRIPING, Facts, findings, histogram
from piolet.data.scanning import Pending, Rules
from piolet.data.tally import Tally
from piolet.tools.lustre import Component
from piolet.tools.mountinfo import Mount
from piolet.tools.quota import Quota, Usage

DAY_S = 86400
EXT4 = Mount("/", "ext4", options=("rw", "relatime"))


@pytest.fixture
def tree(tmp_path) -> Path:
    """A root with 3 files below 1 MiB, a larger one, a hard link, a symbolic link and two directories."""
    root = tmp_path / "tree"
    (root / "a" / "b").mkdir(parents=True)
    (root / "empty.txt").touch()
    (root / "a" / "small.JPG").write_bytes(bytes(3000))
    (root / "a" / "b" / "large.csv").write_bytes(bytes(2 << 20))
    (root / "a" / "b" / "twin.jpg").hardlink_to(root / "a" / "small.JPG")
    (root / "link").symlink_to("nowhere")
    return root


@pytest.fixture
def walk(tmp_path):
    def run(root: Path, rules: Rules | None = None, workers: int = 2) -> Tally:
        started = walking.begin([root], rules or Rules(time.time()), tmp_path / "state")
        return walking.finish(started, workers=workers, report=lambda _: None)

    return run


@pytest.fixture
def piolet(capsys, monkeypatch, tmp_path):
    """Run a command; gives exit status, stdout and stderr."""
    (tmp_path / "site.toml").touch()
    monkeypatch.setenv("PIOLET_SITE_CONFIG", str(tmp_path / "site.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*argv: object):
        status = run_command([str(each) for each in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_walk_counts_each_thing_once(tree, walk):
    tally = walk(tree)

    assert (tally.files, tally.directories, tally.others, tally.small) == (4, 3, 1, 3)
    assert tally.size_bytes == 2 * 3000 + (2 << 20)
    assert tally.inodes == 7, "a file with two names is one inode"
    assert tally.used_bytes == pytest.approx(
        512 * sum({each.lstat().st_ino: each.lstat().st_blocks for each in tree.rglob("*")}.values())
    )
    assert tally.kinds == {"txt": [1, 0], "jpg": [2, 6000], "csv": [1, 2 << 20]}
    assert tally.places[str(tree)] == [1, 0, 1]
    assert tally.places[str(tree / "a" / "b")] == [2, 3000 + (2 << 20), 1]
    assert dict(histogram(tally.sizes)) | {"empty": 1, "< 4 KiB": 2, "< 16 MiB": 1} == dict(histogram(tally.sizes))


@pytest.mark.parametrize(("clock", "days"), [("access", 9), ("modification", 30), ("newest", 9)])
def test_last_use_is_what_the_site_says(tree, walk, clock, days):
    now_s = time.time()
    for path in (tree / "a").rglob("*.jpg"):
        os.utime(path, (now_s - 9.5 * DAY_S, now_s - 30.5 * DAY_S))

    assert walk(tree, Rules(now_s, clock)).idle[days] == 2


def test_a_walk_stays_on_its_file_system_and_says_what_it_could_not_read(tree):
    here = Pending(str(tree), str(tree), tree.stat().st_dev + 1)
    assert scanning.scan([here], Rules(0.0), 100)[0].directories == 0

    gone = Pending(str(tree / "empty.txt"), str(tree), 0)
    tally, _ = scanning.scan([gone], Rules(0.0), 100)
    assert (tally.unreadable_count, tally.unreadable) == (1, [f"{gone.path}: Not a directory"])


def test_a_directory_that_vanishes_is_no_trouble(tree):
    assert scanning.scan([Pending(str(tree / "gone"), str(tree), 0)], Rules(0.0), 9)[0].unreadable_count == 0


def test_the_frontier_keeps_no_more_in_memory_than_it_may(tmp_path):
    frontier = walking.Frontier(tmp_path)
    frontier.put([Pending(str(number), "/", 1) for number in range(50_000)])
    assert len(frontier.pending) <= 20_000

    taken: list[str] = []
    while batch := frontier.take(1000):
        taken += [each.path for each in batch]
    assert sorted(map(int, taken)) == list(range(50_000))


def test_a_walk_that_is_interrupted_goes_on_where_it_was(tree, walk, tmp_path):
    for number in range(40):
        (tree / f"d{number}").mkdir()
        (tree / f"d{number}" / "file").touch()
    whole, directory = walk(tree, Rules(1e9)), tmp_path / "interrupted"
    begun = walking.begin([tree], Rules(1e9), directory)

    def interrupt(_: Tally) -> None:
        raise KeyboardInterrupt

    begun.frontier.pending = [Pending(str(tree), str(tree), tree.stat().st_dev)]
    part, left = scanning.scan(begun.frontier.take(64), begun.rules, 5)
    begun.tally.add(part)
    begun.frontier.put(left)
    with pytest.raises(KeyboardInterrupt):
        walking.finish(begun, workers=2, report=interrupt)
    resumed = walking.finish(walking.resume([tree], directory), workers=2, report=lambda _: None)

    assert resumed.to_json() == whole.to_json()
    assert list(directory.iterdir()) == []
    with pytest.raises(UsageError, match="no interrupted walk"):
        walking.resume([tree], directory)


def test_a_worker_that_is_killed_costs_only_the_time(tree, walk, tmp_path, monkeypatch):
    whole, directory = walk(tree, Rules(1e9)), tmp_path / "killed"
    with monkeypatch.context() as patched:
        patched.setattr(walking, "scan", _die)
        with pytest.raises(Exception, match="a process of the walk was killed"):
            walking.finish(walking.begin([tree], Rules(1e9), directory), workers=2, report=lambda _: None)

    resumed = walking.finish(walking.resume([tree], directory), workers=2, report=lambda _: None)
    assert resumed.to_json() == whole.to_json()


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_leftovers_of_downloads_are_found_and_what_is_in_use_is_not(tmp_path, walk):
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "abc" / "sub"
    snapshot.mkdir(parents=True)
    for name in ("used", "orphan", "half.incomplete", "running.incomplete"):
        (repository / "blobs" / name).write_bytes(bytes(9000))
        os.utime(repository / "blobs" / name, (1e9, 1e9 - 2 * hubcache.QUIET_S))
    os.utime(repository / "blobs" / "running.incomplete", (1e9, 1e9))
    (snapshot / "config.json").symlink_to("../../../blobs/used")

    tally = walk(tmp_path / "hub", Rules(1e9))

    assert {Path(path).name for _, path in tally.leftovers} == {"orphan", "half.incomplete"}
    assert (tally.leftover_files, tally.leftover_bytes) == (2, 2 * 12288)
    assert "rm " in _one(Facts(tmp_path, EXT4, tally), "broken downloads").suggested_action


def _one(facts: Facts, words: str):
    found = [finding for finding in findings(facts) if words in finding.reason]
    assert len(found) == 1, findings(facts)
    return found[0]


@pytest.mark.parametrize(("used", "severity"), [(79, None), (80, Severity.WARNING), (100, Severity.ERROR)])
def test_a_quota_that_is_nearly_used_up_is_told(used, severity):
    facts = Facts(Path("/s"), EXT4, Tally(), quota=Quota("lfs quota", Usage(0), Usage(used, 100, 110)))

    assert [finding.severity for finding in findings(facts)] == ([severity] if severity else [])


def test_where_no_tool_tells_a_quota_the_table_of_the_site_does():
    known = site.FileSystem(path="/s", soft_inodes=100)
    facts = Facts(Path("/s"), EXT4, Tally(inodes=99), known, quota_trouble="quota was not found")

    assert "storage table" in _one(facts, "inodes: 99 of 100").reason
    assert _one(Facts(Path("/s"), EXT4, Tally(), quota_trouble="no lfs"), "not known").severity is Severity.INFO


def test_what_will_be_purged_is_counted_and_the_first_day_told():
    tally = Tally(files=3)
    tally.idle[2], tally.idle[23], tally.idle[28] = 5, 1, 2
    tally.idle_bytes[28] = 4000
    known = site.FileSystem(path="/s", purge_days=30)

    finding = _one(Facts(Path("/s"), EXT4, tally, known), "purge")

    assert finding.evidence == {"files": 3, "bytes": 4000, "first_in_days": 2}
    assert "find /s -type f -atime +22" in finding.suggested_action
    blind = Mount("/", "ext4", options=("noatime",))
    assert "keeps no access times" in findings(Facts(Path("/s"), blind, tally, known))[0].reason


def test_crowded_directories_formats_and_slow_tiers_are_told_with_commands():
    tally = Tally(files=20_000, small=20_000)
    tally.places = {"/s/images": [20_000, 2 * 10**9, 20_000], "/s/few": [9, 0, 9]}
    tally.kinds = {"csv": [3, 5 * 10**9], "npz": [1, 10]}
    tally.idle_bytes[0] = 2 * 10**9
    known = site.FileSystem(path="/s", tier="hdd", fast="/flash")

    facts = Facts(Path("/s"), EXT4, tally, known)

    assert "piolet data pack /s/images /s/images.sqsh" in _one(facts, "are small").suggested_action
    assert _one(facts, ".csv").suggested_action == "convert to Parquet"
    assert "/flash" in _one(facts, "lie on hdd").suggested_action
    assert len(findings(facts)) == 3


def test_large_files_on_one_target_are_to_be_migrated():
    layouts = {"/s/big 1": (Component(None, 1),), "/s/wide": STRIPING}

    finding = _one(Facts(Path("/s"), EXT4, Tally(), layouts=layouts), "one OST")

    striping = "-E 4M -c 1 -E 64M -c 4 -E -1 -c 32 -S 4M"
    assert f"lfs setstripe {striping} /s\nlfs migrate {striping} '/s/big 1'" in finding.suggested_action


def test_the_table_of_the_site_is_read_strictly(tmp_path):
    path = tmp_path / "storage.toml"
    path.write_text('[scratch]\npath = "/s"\nsoft_bytes = "150 TB"\n[inner]\npath = "/s/in"\n', encoding="utf-8")
    table = site.read(path)
    assert table[0].soft_bytes == 150 * 10**12
    assert [site.holding(each, table) for each in ("/s/x", "/s/in", "/sx")] == [table[0], table[1], None]

    for line, words in (
        ("purge_day = 1", 'did you mean "purge_days"'),
        ("purge_days = -1", "purge_days"),
        ("tier = 3", "tier"),
    ):
        path.write_text(f'[scratch]\npath = "/s"\n{line}\n', encoding="utf-8")
        with pytest.raises(ConfigError, match=words) as caught:
            site.read(path)
        assert caught.value.line == 3
    path.write_text("scratch = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a table"):
        site.read(path)


def test_the_command_prints_counts_and_ends_with_1_on_findings(piolet, tree, tmp_path):
    table = tmp_path / "storage.toml"
    table.write_text(f'[here]\npath = "{tmp_path}"\nsoft_inodes = 7\n', encoding="utf-8")
    (tmp_path / "site.toml").write_text(f'[data]\nstorage = "{table}"\n', encoding="utf-8")

    status, out, _ = piolet("data", "check", tree)
    assert status == 1
    assert "4 files in 3 directories, 2.1 MB" in out
    assert "error:" in out
    assert "inodes: 7 of 7 (100%)" in out

    status, out, _ = piolet("data", "check", tree, "--format", "json")
    found = json.loads(out)[0]
    assert (status, found["counts"]["files"], found["findings"][0]["severity"]) == (1, 4, "error")


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("/nowhere",), 3, "No such file"),
        (("/etc/passwd",), 2, "not a directory"),
        (("--resume", "/etc"), 2, "begin anew without --resume"),
    ],
)
def test_wrong_paths_are_one_clear_error(piolet, argv, status, words):
    got, out, err = piolet("data", "check", *argv)

    assert (got, out) == (status, "")
    assert words in err
