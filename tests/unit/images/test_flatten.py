"""Layers as one tree: what covers what."""

import io
import tarfile

import pytest
from oci_images import entry, layer, link

from piolet.core.errors import ParseError
from piolet.tools.oci.flatten import flatten


def flat(tmp_path, *layers):
    paths = []
    for index, content in enumerate(layers):
        paths.append(tmp_path / f"{index}.tar")
        paths[-1].write_bytes(content)
    out = io.BytesIO()
    flatten(paths, out)
    out.seek(0)
    archive = tarfile.open(fileobj=out)  # noqa: SIM115 - in memory
    return archive, {member.name: member for member in archive.getmembers()}


def text(archive, name):
    return archive.extractfile(name).read()


def test_later_layers_cover_earlier_ones(tmp_path):
    archive, members = flat(
        tmp_path,
        layer(entry("a"), entry("a/kept", b"1"), entry("a/changed", b"1"), entry("b", b"file")),
        layer(entry("a/changed", b"22", mode=0o600), entry("b/now/deep", b"3")),
    )
    assert text(archive, "a/kept") == b"1"
    assert text(archive, "a/changed") == b"22"
    assert members["a/changed"].mode == 0o600
    assert members["b"].isdir()
    assert text(archive, "b/now/deep") == b"3"
    assert len(members) == len(archive.getmembers())


def test_whiteouts_hide_what_is_below_only(tmp_path):
    _, members = flat(
        tmp_path,
        layer(entry("a"), entry("a/x", b"1"), entry("a/y", b"1"), entry("d"), entry("d/old", b"1"), entry("e/f", b"1")),
        layer(
            entry("a/.wh.x", b""), entry("d/new", b"2"), entry("d/.wh..wh..opq", b""), entry(".wh.e", b""), entry("e")
        ),
    )
    assert set(members) == {"a", "a/y", "d", "d/new", "e"}


def test_hard_links_survive_the_end_of_their_first_name(tmp_path):
    archive, members = flat(
        tmp_path,
        layer(entry("one", b"content", mode=0o755), link("two", "one"), link("three", "./one")),
        layer(entry("one", b"other")),
    )
    assert text(archive, "one") == b"other"
    assert text(archive, "three") == text(archive, "two") == b"content"
    assert members["three"].mode == 0o755
    assert {members["three"].islnk(), members["two"].islnk()} == {True, False}


def test_attributes_long_names_and_symbolic_links(tmp_path):
    attribute = {"SCHILY.xattr.user.note": "yes"}
    long = "/".join(["d" * 90] * 3)
    archive, members = flat(
        tmp_path,
        layer(entry(f"./{long}", b"far", pax_headers=attribute), link("s", "/etc/x", tarfile.SYMTYPE)),
    )
    assert text(archive, long) == b"far"
    assert members[long].pax_headers["SCHILY.xattr.user.note"] == "yes"
    assert members["s"].linkname == "/etc/x"


def test_device_nodes_are_left_out(tmp_path):
    _, members = flat(tmp_path, layer(entry("dev"), entry("dev/disk", b"", type=tarfile.BLKTYPE)))
    assert set(members) == {"dev"}


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([entry("../../etc/passwd", b"x")], "leads out of the image"),
        ([entry("a/../../b", b"x")], "leads out of the image"),
        ([link("a", "nowhere")], "a hard link in a layer leads nowhere"),
    ],
)
def test_refused(tmp_path, entries, what):
    with pytest.raises(ParseError, match=what):
        flat(tmp_path, layer(*entries))


def test_a_layer_that_is_no_archive(tmp_path):
    with pytest.raises(ParseError, match="not a tar archive"):
        flat(tmp_path, b"x" * 2000)
