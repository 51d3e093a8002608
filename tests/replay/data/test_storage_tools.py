"""Quotas, layouts and mounts: texts written in the documented forms of the tools, since no such file system is here."""

from pathlib import Path

import pytest

from piolet.core.errors import ParseError, ToolError
from piolet.core.run import Result, SystemRunner
from piolet.core.text import count, parse_size, size
from piolet.tools import lustre, mountinfo, quota
from piolet.tools.lustre import Component
from piolet.tools.mountinfo import Mount
from piolet.tools.quota import Quota, Usage

LFS_QUOTA = "     /scratch  500*     400    1000       6d        7       0       0       -\n"
LFS_LONG = """Disk quotas for usr ann (uid 1000):
     Filesystem    used   quota   limit   grace   files   quota   limit   grace
/a/very/long/name/of/a/mount/point
                  [500]     0    1000       -   900001* 900000 1000000 1w2d3h
"""
LINUX_QUOTA = """Disk quotas for user ann (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
          /home     500       0    1000       0       7      20      30       0
"""
PLAIN = """/s/file
lmm_stripe_count:  1
lmm_stripe_size:   1048576
lmm_pattern:       raid0
lmm_layout_gen:    0
lmm_stripe_offset: 2
"""
COMPOSITE = """  lcm_layout_gen:    3
  lcm_mirror_count:  1
  lcm_entry_count:   2
  component0:
    lcme_id:             1
    lcme_extent.e_start: 0
    lcme_extent.e_end:   4194304
      lmm_stripe_count:  1
      lmm_stripe_size:   1048576
  component1:
    lcme_id:             2
    lcme_extent.e_start: 4194304
    lcme_extent.e_end:   EOF
      lmm_stripe_count:  32
      lmm_stripe_size:   4194304
"""
DIRECTORY = "stripe_count:  -1 stripe_size:   4194304 pattern: raid0 stripe_offset: -1\n"


@pytest.mark.parametrize(
    ("text", "space", "inodes"),
    [
        (LFS_QUOTA, Usage(512_000, 409_600, 1_024_000), Usage(7)),
        (LFS_LONG, Usage(512_000, None, 1_024_000), Usage(900_001, 900_000, 1_000_000)),
        (LINUX_QUOTA, Usage(512_000, None, 1_024_000), Usage(7, 20, 30)),
    ],
)
def test_quotas(text, space, inodes):
    assert quota.parse(text, "x") == Quota("x", space, inodes)


def test_no_quota_and_garbage():
    assert quota.parse("", "quota") is None
    assert quota.parse("Disk quotas for user ann (uid 1000): none\n", "quota") is None
    with pytest.raises(ParseError, match="not a line of quotas"):
        quota.parse("something else\n", "quota")


class Saying:
    """A runner that keeps what it was asked and answers with one text."""

    def __init__(self, text: str) -> None:
        self.text, self.asked = text, []

    def run(self, argv, **_):
        self.asked.append(list(argv))
        return Result(tuple(argv), 0, self.text, "")


def test_each_file_system_is_asked_with_its_own_tool():
    runner = Saying(LFS_QUOTA)
    assert quota.of(Mount("/scratch", "lustre"), "ann", runner).source == "lfs quota"
    assert runner.asked == [["lfs", "quota", "-q", "-u", "ann", "/scratch"]]

    assert quota.of(Mount("/home", "nfs4"), "ann", Saying(LINUX_QUOTA)).inodes.limit == 20
    assert quota.of(Mount("/memory", "tmpfs"), "ann", Saying("garbage")) is None


def test_the_real_quota_takes_its_options_and_what_it_cannot_tell_is_an_error():
    assert quota.of(Mount("/proc", "ext4"), "root", SystemRunner()) is None, "it has no quotas"
    with pytest.raises(ToolError, match="does not exist"):
        quota.of(Mount("/proc", "ext4"), "nobody-of-this-name", SystemRunner())


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (PLAIN, (Component(None, 1, 1 << 20),)),
        (COMPOSITE, (Component(4 << 20, 1, 1 << 20), Component(None, 32, 4 << 20))),
        (DIRECTORY, (Component(None, -1, 4 << 20),)),
        ("", ()),
    ],
)
def test_layouts(text, layout):
    assert lustre.read_layout(Path("/s/file"), Saying(text)) == layout


def test_a_layout_that_cannot_be_read_is_an_error():
    with pytest.raises(ParseError, match="not a layout"):
        lustre.parse_layout("lmm_stripe_count: many\n")


def test_mounts(tmp_path):
    text = (
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"2 1 0:40 / {tmp_path} rw,noatime - lustre mgs:/s rw\n"
        "3 1 0:41 / /a\\040b rw - tmpfs tmpfs rw\ngarbage\n"
    )
    mounts = mountinfo.parse(text)

    assert [mount.kind for mount in mounts] == ["ext4", "lustre", "tmpfs"]
    assert mounts[2].path == "/a b"
    assert mountinfo.holding(tmp_path / "x", mounts) == mounts[1]
    assert [mount.keeps_access_times for mount in mounts[:2]] == [True, False]
    assert mountinfo.holding(Path("/proc/self"), mountinfo.mounted()).kind == "proc"


def test_sizes_and_counts_in_words():
    assert [size(each) for each in (0, 999, 1500, 10**6 - 1, 64 * 10**12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "1.0 MB",
        "64 TB",
    ]
    assert [parse_size(each) for each in ("4096", "64MiB", "1.5 TB", "10G")] == [4096, 1 << 26, 15 * 10**11, 10**10]
    assert count(1234567) == "1\N{NO-BREAK SPACE}234\N{NO-BREAK SPACE}567"
    with pytest.raises(ValueError, match="must be a size"):
        parse_size("many")
