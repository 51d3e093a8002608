"""`piolet run --stage`: what is asked for, what becomes of a plan, and what is refused before nodes are held."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from piolet.core.errors import PioletError, UsageError
from piolet.core.nodeset import NodeSet
from piolet.data.staging.choosing import Choice
from piolet.data.staging.stage import Outcome
from piolet.env import ContainerPlan
from piolet.env.model import Image, ImageKind, Mount, MountKind
from piolet.launch import copies
from piolet.launch.copies import Copy
from piolet.launch.request import RunRequest, check

MEMORY = Path("/memory")
PACKED = Copy(Path("/scratch/set.sqsh"), MEMORY / "set.sqsh")


def test_a_source_goes_to_memory_or_where_one_says():
    assert copies.parse("/scratch/set.sqsh", Path("/home"), MEMORY) == PACKED
    assert copies.parse("../set", Path("/home/me"), MEMORY) == Copy(Path("/home/set"), MEMORY / "set")
    assert copies.parse("set:/local/it/", Path("/home"), MEMORY) == Copy(Path("/home/set"), Path("/local/it"))


@pytest.mark.parametrize("text", ["", ":/local", "set:local", "set:/local:ro", "/"])
def test_what_is_no_copy_is_refused(text):
    with pytest.raises(UsageError, match="--stage cannot be") as refusal:
        copies.parse(text, Path("/home"), MEMORY)
    assert "SRC:DST" in refusal.value.remedy


def test_sources_must_be_there_and_places_apart(tmp_path):
    here, within = Copy(tmp_path, MEMORY), Copy(tmp_path, MEMORY / "deeper")
    assert check(RunRequest(("x",), copies=(here,)))
    with pytest.raises(UsageError, match="two copies at /memory"):
        check(RunRequest(("x",), copies=(within, here)))
    with pytest.raises(UsageError, match="nothing to stage"):
        check(RunRequest(("x",), copies=(Copy(tmp_path / "absent", MEMORY),)))


def test_a_plan_takes_from_the_copy_what_comes_from_the_source():
    def mount(source: str, target: str, *flags: str, kind: MountKind = MountKind.BIND) -> Mount:
        return Mount(kind, source, target, flags, "demo.toml:3")

    plan = ContainerPlan(
        "demo",
        Image(ImageKind.SQUASHFS, Path("/scratch/data/image.sqsh"), "demo.toml:1", 7, 8),
        mounts=(
            mount("/scratch/set.sqsh", "/set", kind=MountKind.SQUASHFS),
            mount("/scratch/data/a", "/a", "noexec"),
            mount("/scratch/data2", "/b"),
            mount("", "/run", kind=MountKind.TMPFS),
        ),
    )

    changed = copies.in_plan(plan, [PACKED, Copy(Path("/scratch/data"), Path("/local/data"))])

    assert (changed.image.path, changed.image.mtime_ns) == (Path("/local/data/image.sqsh"), 8)
    assert [(each.source, each.target, each.flags) for each in changed.mounts] == [
        ("/memory/set.sqsh", "/set", ()),
        ("/local/data/a", "/a", ("ro", "noexec")),
        ("/scratch/data2", "/b", ()),
        ("", "/run", ()),
        ("/memory/set.sqsh", "/memory/set.sqsh", ("ro",)),
        ("/local/data", "/local/data", ("ro",)),
    ]
    assert changed.mounts[0].origin == "demo.toml:3, --stage"
    assert copies.in_plan(plan, []) == plan


def test_copies_go_in_turn_and_all_of_them_when_one_fails(capsys):
    happened = []

    @contextmanager
    def staging(used, copy):
        lost = {"node2": "no room"} if copy.target == Path("/full") else {}
        happened.append(copy.target)
        yield Outcome(5, used - NodeSet(list(lost)), NodeSet(), lost, Choice(direct=False, reason="as asked"), 1.0, {})
        happened.append(f"no {copy.target}")

    used, full = NodeSet("node[1-2]"), Copy(Path("/s"), Path("/full"))
    with copies.held(staging, used, [PACKED]) as [staged]:
        assert (staged.target, staged.way) == ("/memory/set.sqsh", "passed from node to node: as asked")
    with pytest.raises(PioletError) as refusal, copies.held(staging, used, [PACKED, full]):
        pass

    assert happened == [PACKED.target, "no /memory/set.sqsh", PACKED.target, full.target, "no /full", happened[1]]
    assert (refusal.value.lost, refusal.value.where) == ({"node2": "/full: no room"}, "node2")
    assert "on 2 nodes" in capsys.readouterr().err
