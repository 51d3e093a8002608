"""Images into the store, from a real registry with a password and from files."""

import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import oci_images
import pytest
from oci_images import entry, layer, link

from piolet.core.errors import ParseError, PioletError
from piolet.tools.oci import reference


@pytest.fixture
def stored(registry, busybox, home):
    home.log_in(registry)
    return home.pull(busybox)


def listed(image):
    """Return the rows of `unsquashfs -lls` by name; a symbolic link's target comes after it."""
    done = subprocess.run(["unsquashfs", "-lls", "-d", "", image], check=True, capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[5]: row for row in rows if len(row) > 5}


def test_an_image_of_a_registry(stored, home, busybox):
    rows = listed(stored.path)
    assert rows["/bin/busybox"][:2] == ["-rwxr-xr-x", "root/root"]
    assert (stored.env, stored.workdir) == (("PATH=/bin", "FROM_IMAGE=a b"), "/etc")
    assert home.store.named(reference.parse(busybox), os.uname().machine) == stored
    assert not list((home.store.root / "work").iterdir())
    assert not list(home.store.claims.iterdir())


def test_a_second_pull_transfers_no_layer(stored, home, busybox, registry):
    before = registry.asked("/blobs/")
    assert home.pull(busybox) == stored
    assert registry.asked("/blobs/") == before


def test_without_a_credential(registry, busybox, home):
    with pytest.raises(PioletError) as caught:
        home.pull(busybox)
    assert "the registry refused a request without a credential (HTTP 401)" in caught.value.what
    assert f"podman login {registry.host}" in caught.value.remedy


def test_with_a_wrong_password(registry, busybox, home):
    file = home.path / ".config/enroot/.credentials"
    file.parent.mkdir(parents=True)
    file.write_text(f"machine {registry.host} login ada password guessed\n")
    with pytest.raises(PioletError) as caught:
        home.pull(busybox)
    assert f"refused the credential of ada from {file}" in caught.value.what
    assert "guessed" not in str(caught.value)


def test_no_such_image(registry, home):
    home.log_in(registry)
    with pytest.raises(PioletError, match="no such image"):
        home.pull(f"{registry.host}/team/none:1")


def test_an_image_for_other_nodes(registry, home, tmp_path):
    home.log_in(registry)
    other = next(name for name in ("amd64", "arm64") if name != {"x86_64": "amd64"}.get(os.uname().machine, "arm64"))
    name = registry.push(
        oci_images.layout(tmp_path / "l", [layer(entry("a", b"1"))], machines=(other,)), "team/other:1"
    )
    with pytest.raises(PioletError, match=f"not made for {os.uname().machine}, only for {other}"):
        home.pull(name)


def test_a_killed_transfer_is_resumed(registry, home):
    home.log_in(registry)
    data = layer(entry("data", os.urandom(3 << 20)))
    made = oci_images.layout(home.path / "big", [data])
    name = registry.push(made, "team/big:1")
    whole = max((made / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    dead = subprocess.Popen(["true"])
    dead.wait()
    home.store.blobs.mkdir(parents=True)
    left = home.store.blobs / f".{whole.name}~1234~{os.uname().nodename}~{dead.pid}"
    left.write_bytes(whole.read_bytes()[: 2 << 20])
    home.pull(name)
    assert (home.store.blobs / whole.name).read_bytes() == whole.read_bytes()
    assert f'"GET /v2/team/big/blobs/sha256:{whole.name} HTTP/1.1" 206' in registry.log.read_text()


def test_a_damaged_layer_is_refused_and_leaves_nothing(registry, home):
    home.log_in(registry)
    made = oci_images.layout(home.path / "made", [layer(entry("a", b"1"))])
    saved = home.path / "saved"
    shutil.copytree(made, saved)
    for path in (saved / "blobs/sha256").iterdir():
        if path.read_bytes()[:2] == b"\x1f\x8b":
            path.write_bytes(oci_images.gzip.compress(layer(entry("a", b"2"))))
    with pytest.raises(PioletError, match="a layer is not what the image says"):
        home.importer().from_layout(saved, reference.parse("localhost/damaged"))
    assert home.store.images() == ()
    assert not list((home.store.root / "work").iterdir())
    assert home.importer().from_layout(made, reference.parse("localhost/whole")).name == "localhost/whole:latest"


@pytest.mark.parametrize("form", ["directory", "archive"])
def test_a_layout(home, form):
    parts = [layer(entry("a", b"1"), link("b", "a")), layer(entry(".wh.a", b""))]
    source = oci_images.layout(home.path / "l", parts)
    if form == "archive":
        source = oci_images.archive(source, home.path / "l.tar")
    done = home.run("import", str(source), "--name", "mine:2")
    assert (done.returncode, done.stdout) == (0, "localhost/mine:2\n"), done.stderr
    (image,) = home.store.images()
    assert {"/a", "/b"} & set(listed(image.path)) == {"/b"}


def test_what_is_no_image(home):
    (home.path / "x.tar").write_bytes(b"nothing" * 1000)
    done = home.run("import", "x.tar")
    assert done.returncode == 3
    assert "not an archive of an image" in done.stderr
    (home.path / "empty").mkdir()
    assert "it has no index.json" in home.run("import", "empty").stderr
    assert "no such image" in home.run("import", "gone.tar").stderr


def test_commands(registry, busybox, home):
    home.log_in(registry)
    assert busybox in home.run("pull", busybox).stdout
    (row,) = json.loads(home.run("images", "--format", "json").stdout)
    assert (row["name"], row["architecture"]) == (busybox, os.uname().machine)
    done = home.run("rm", "127.0.0.1:1/none")
    assert done.returncode == 2
    assert "no such image in the store" in done.stderr
    copy = shutil.copy(row["path"], home.path / "copy.sqsh")
    assert home.run("import", str(copy)).stdout == "localhost/copy:latest\n"
    assert "removed" in home.run("rm", row["digest"][7:19], "localhost/copy").stdout
    assert home.store.images() == ()


def test_an_edf_imports_its_image_before_anything_starts(registry, busybox, home):
    home.log_in(registry)
    (home.path / "t.toml").write_text(f'image = "{busybox.replace("/", "#", 1)}"\n')
    checked = home.run("check", "./t.toml")
    assert checked.returncode == 0, checked.stderr
    assert "not in the store" in home.run("render", "./t.toml").stdout
    assert home.store.images() == ()
    done = home.run("run", "./t.toml", "--", "sh", "-c", "echo $FROM_IMAGE; cat release")
    assert done.stdout == "a b\nmade by a test\n", done.stderr
    record = json.loads(home.run("render", "./t.toml", "--format", "json").stdout)
    assert record["image"]["digest"] == home.store.images()[0].digest
    assert {"key": "workdir", "value": "/etc", "origin": f"image {busybox}"} in record["values"]


def test_a_wrong_edf_imports_nothing(registry, busybox, home):
    home.log_in(registry)
    (home.path / "t.toml").write_text(f'image = "{busybox}"\nmounts = ["relative:/x"]\n')
    assert home.run("compile", "./t.toml").returncode == 2
    assert home.store.images() == ()


class Moody(BaseHTTPRequestHandler):
    """A registry that answers what its class says, one after the other."""

    answers = ()
    seen: ClassVar = []

    def do_GET(self):
        (status, headers, *body), *rest = Moody.answers
        content = "".join(body).encode()
        Moody.seen.append(self.headers.get("Authorization"))
        Moody.answers = rest or Moody.answers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def moody():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}/a/b:1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_registry_is_asked_again_and_then_named(home, moody, status):
    shown = []
    Moody.answers = [(status, {}), (404, {})]
    with pytest.raises(PioletError, match="no such image"):
        home.pull(moody, show=shown.append)
    Moody.answers = [(status, {"Retry-After": "500"})]
    with pytest.raises(PioletError) as caught:
        home.pull(moody, patience_s=3)
    assert f"says HTTP {status}" in shown[0].doing
    assert f"did not serve within 3 s: HTTP {status}" in caught.value.what
    assert "it asks for a pause of 500 s" in caught.value.what


def test_a_registry_that_is_not_there(home):
    with pytest.raises(PioletError, match="did not serve within 0 s"):
        home.pull("127.0.0.1:1/a/b", patience_s=0)


def test_garbage_from_a_registry(home, moody):
    Moody.answers = [(200, {})]
    with pytest.raises(ParseError, match="not valid JSON"):
        home.pull(moody)


def test_tokens_are_asked_for_where_the_registry_says(home, moody):
    realm = f"http://{moody.partition('/')[0]}/token"
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="s",scope="repository:a/b:pull"'}
    Moody.seen.clear()
    Moody.answers = [(401, challenge), (200, {}, '{"token": "abc"}'), (404, {})]
    with pytest.raises(PioletError, match="no such image"):
        home.pull(moody)
    assert Moody.seen == [None, None, "Bearer abc"]
    Moody.answers = [(401, challenge), (200, {}, "no JSON")]
    with pytest.raises(ParseError, match="not a token"):
        home.pull(moody)
