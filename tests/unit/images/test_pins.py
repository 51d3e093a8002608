"""`piolet env lock`: with a real registry, whose tags move."""

import json
import os

import oci_images
import pytest
from oci_images import busybox_layer, entry, layer

from piolet.core.errors import UsageError
from piolet.env import pins
from piolet.env.edf import ARCHITECTURES
from piolet.tools.oci import reference

HERE = os.uname().machine
SHOW = ("run", "./t.toml", "--", "sh", "-c", "echo $RELEASE")


@pytest.fixture
def push(registry, home):
    """Push an image that says which release it is, under the same tag each time, and give its name."""
    home.log_in(registry)

    def push(release, **options):
        made = oci_images.layout(
            home.path / f"layout-{release}", [busybox_layer()], Env=["PATH=/bin", f"RELEASE={release}"], **options
        )
        return registry.push(made, f"moving/{home.path.name.replace('_', '-').lower()}:1")

    return push


@pytest.fixture
def locked(push, home):
    """The name of an image that ./t.toml has, locked while it was release 1; the tag then moves to release 2."""
    name = push("one")
    (home.path / "t.toml").write_text(f'image = "{name}"\n')
    done = home.run("lock", "./t.toml")
    assert done.returncode == 0, done.stderr
    push("two")
    return name


def digests(home, file="t.lock.json"):
    images = json.loads((home.path / file).read_text())["images"]
    return {architecture: pin["digest"] for architecture, pin in images.items()}


def test_a_tag_that_moved_keeps_the_locked_image(locked, home):
    assert home.store.images() == ()
    assert home.run(*SHOW).stdout == "one\n"
    assert [image.digest for image in home.store.images()] == [digests(home)[HERE]]
    assert home.run("pull", locked).returncode == 0
    assert home.run(*SHOW).stdout == "one\n"
    (home.path / "t.lock.json").unlink()
    assert home.run(*SHOW).stdout == "two\n"


def test_an_update_shows_old_and_new(locked, home):
    old = digests(home)
    shown = home.run("lock", "./t.toml", "--update").stdout.splitlines()
    new = digests(home)
    assert set(old) == set(new) == set(ARCHITECTURES)
    lines = [(f"- {each} {locked} {old[each]}", f"+ {each} {locked} {new[each]}") for each in sorted(new)]
    assert shown == [line for pair in lines for line in pair]
    assert old[HERE] != new[HERE]
    assert home.run(*SHOW).stdout == "two\n"
    again = home.run("lock", "./t.toml", "--update").stdout.splitlines()
    assert again == [f"  {each} {locked} {new[each]}" for each in sorted(new)]


@pytest.mark.usefixtures("locked")
def test_a_locked_image_in_the_store_needs_no_registry(home, registry):
    assert home.run("compile", "./t.toml").returncode == 0
    before = registry.asked("/manifests/")
    assert home.run("compile", "./t.toml").returncode == 0
    assert registry.asked("/manifests/") == before


def test_each_architecture_has_its_image(push, home, registry):
    name = push("one")
    other = registry.push(oci_images.layout(home.path / "other", [layer(entry("a", b"1"))]), "moving/other:1")
    (home.path / "t.toml").write_text(f'[image]\naarch64 = "{name}"\nx86_64 = "{other}"\n')
    shown = home.run("lock", "./t.toml").stdout.splitlines()
    assert [line.split()[:3] for line in shown] == [["+", "aarch64", name], ["+", "x86_64", other]]


def test_an_image_that_is_made_for_one_architecture(push, home):
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[HERE]
    name = push("one", machines=(machine,))
    (home.path / "t.toml").write_text(f'image = "{name}"\n')
    assert home.run("lock", "./t.toml").returncode == 0
    assert set(digests(home)) == {HERE}
    (home.path / "t.toml").write_text("[image]\n" + "".join(f'{each} = "{name}"\n' for each in ARCHITECTURES))
    done = home.run("lock", "./t.toml", "--update")
    assert done.returncode == 2
    assert f"only for {machine}" in done.stderr
    assert set(digests(home)) == {HERE}


@pytest.mark.parametrize("image", ["127.0.0.1:1/a/b:2", "./rootfs", f"127.0.0.1:1/a/b@sha256:{'0' * 64}"])
def test_a_lock_that_no_longer_fits(home, image):
    pins.write(home.path / "t.lock.json", {HERE: pins.Pin("127.0.0.1:1/a/b:1", f"sha256:{'1' * 64}")})
    (home.path / "rootfs").mkdir()
    (home.path / "t.toml").write_text(f'image = "{image}"\n')
    done = home.run("check", "./t.toml")
    assert done.returncode == 2
    assert f"no longer fits: it has 127.0.0.1:1/a/b:1 for {HERE}, not {image}" in done.stderr
    assert f"piolet env lock {home.path}/t.toml --update" in done.stderr
    assert f"{home.path}/t.toml:1:1" in done.stderr


def test_a_lock_without_the_architecture(home):
    pins.write(home.path / "t.lock.json", {"sparc": pins.Pin("127.0.0.1:1/a/b:1", f"sha256:{'1' * 64}")})
    (home.path / "t.toml").write_text('image = "127.0.0.1:1/a/b:1"\n')
    assert f"it has no image for {HERE}" in home.run("check", "./t.toml").stderr


def test_a_locked_image_that_is_nowhere(locked, home):
    pin = pins.Pin(locked, f"sha256:{'1' * 64}")
    pins.write(home.path / "t.lock.json", {HERE: pin})
    done = home.run("compile", "./t.toml")
    assert done.returncode == 2
    assert f"@{pin.digest}" in done.stderr
    assert "no such image" in done.stderr


def test_a_local_image_is_locked_too(home):
    (home.path / "t.toml").write_text('image = "localhost/mine:1"\n')
    assert "no such image in the store" in home.run("lock", "./t.toml").stderr
    for release in ("one", "two"):
        source = oci_images.layout(home.path / release, [layer(entry(release, b"1"))])
        assert home.run("import", str(source), "--name", "mine:1").returncode == 0
        assert home.run("lock", "./t.toml").returncode == {"one": 0, "two": 2}[release]
    assert set(digests(home)) == {HERE}
    record = json.loads(home.run("render", "./t.toml", "--format", "json").stdout)
    assert record["image"]["digest"] == digests(home)[HERE]
    assert home.store.named(reference.parse("localhost/mine:1"), HERE).digest != digests(home)[HERE]


def test_what_cannot_be_locked(home):
    (home.path / "t.toml").write_text('image = "./rootfs"\n')
    done = home.run("lock", "./t.toml")
    assert (done.returncode, "no image of the environment has a tag" in done.stderr) == (2, True)
    (home.path / "t.toml").write_text('image = "127.0.0.1:1/A"\n')
    assert "names are in lower case" in home.run("lock", "./t.toml").stderr
    (home.path / "t.lock.json").write_text("{}")
    assert "locked already" in home.run("lock", "./t.toml").stderr
    assert "not the lock of an environment" in home.run("lock", "./t.toml", "--update").stderr
    assert (home.path / "t.lock.json").read_text() == "{}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 2, "images": {}}',
        '{"schema": 1, "images": []}',
        '{"schema": 1, "images": {"x86_64": {"image": "a:1"}}}',
        '{"schema": 1, "images": {"x86_64": {"image": "a:1", "digest": "sha256:1"}}}',
        '{"schema": 1, "images": {"x86_64": {"image": 1, "digest": ""}}}',
    ],
)
def test_what_is_no_lock(tmp_path, text):
    (tmp_path / "t.lock.json").write_text(text)
    with pytest.raises(UsageError, match="not the lock of an environment"):
        pins.read(tmp_path / "t.lock.json")
