"""Images as users scan them: archives by skopeo, squashfs files by mksquashfs, root directories; what they hide."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from leaking import HUGGING_FACE
from oci_images import archive, busybox_layer, entry, layer, layout, link

from piolet.cli.main import run_command
from piolet.core.errors import ConfigError
from piolet.guard.image import packages, vulnerabilities
from piolet.guard.image.scan import scan_image
from piolet.guard.policy import ImageLimits

DEBIAN = b'ID=debian\nVERSION_ID="12"\n'
STATUS = (
    b"Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl\nVersion: 3.0.9-1\n"
    b"Description: a library\n with more lines\n\n"
    b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc (2.36-9+deb12u4)\n"
    b"Version: 2.36-9\n\n"
    b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
)
METADATA = b"Metadata-Version: 2.1\nName: Py_YAML\nVersion: 5.3.1\n\nName: no field\n"
SITE = "usr/local/lib/python3.11/site-packages"
RICH = (
    entry("etc/os-release", DEBIAN),
    entry("var/lib/dpkg/status", STATUS),
    entry(f"{SITE}/Py_YAML-5.3.1.dist-info/METADATA", METADATA),
    entry("opt/conda/conda-meta/zlib-1.json", b'{"name": "zlib", "version": "1.3.1"}'),
)


@pytest.fixture
def guard(capsys, monkeypatch, tmp_path):
    """Run `piolet guard image --format json`; gives its exit status and {(rule, inside): reason}."""
    (tmp_path / "site.toml").touch()
    monkeypatch.setenv("PIOLET_SITE_CONFIG", str(tmp_path / "site.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*argv):
        status = run_command(["guard", "image", "--format", "json", *map(str, argv)])
        captured = capsys.readouterr()
        found = json.loads(captured.out)["risks"] if captured.out else captured.err
        return status, {(each["rule"], each["inside"]): each["reason"] for each in found} if captured.out else found

    return run


@pytest.fixture
def image(tmp_path):
    """Make an OCI directory of layers."""
    count = iter(range(9))
    return lambda *layers, **config: layout(tmp_path / f"image{next(count)}", layers, **config)


def advisory(directory, name, ecosystem, package, *events, **more):
    directory.mkdir(exist_ok=True)
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}]
    affected = [{"package": {"ecosystem": ecosystem, "name": package}, "ranges": ranges}]
    (directory / f"{name}.json").write_text(json.dumps({"id": name, "affected": affected} | more))


def scanned(path, **limits):
    return {(each.rule, each.inside) for each in scan_image(path, ImageLimits(**limits))[0].risks}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_secret_that_a_later_layer_deletes_is_found(guard, image, tmp_path, compression):
    made = image(
        busybox_layer(),
        layer(entry("app/.env", f"HF_TOKEN={HUGGING_FACE}\n".encode())),
        layer(entry("app/.wh..env", b""), entry("app/train.py", b"print(1)\n")),
    )
    target = tmp_path / "image.tar"
    argv = [
        "skopeo",
        "copy",
        "--quiet",
        "--insecure-policy",
        "--dest-compress",
        f"--dest-compress-format={compression}",
    ]
    argv += ["--override-arch=amd64", f"oci:{made}:made", f"oci-archive:{target}"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    status, risks = guard(target)
    assert status == 1
    assert ("secret/value", "app/.env (layer 2)") in risks
    assert HUGGING_FACE not in json.dumps(list(risks.values()))
    assert not [rule for rule, _ in risks if rule.startswith("image/")]


def test_rights_names_and_variables(image):
    made = image(
        layer(
            entry("bin/su", b"\x7fELF\0", mode=0o4755),
            entry("bin/ping", b"\x7fELF\0", pax_headers={"SCHILY.xattr.security.capability": "x"}),
            entry("root/.ssh/id_ed25519", b"\0binary"),
            entry("root/.netrc", b""),  # empty: nothing in it
            link("root/.pgpass", "/dev/null", tarfile.SYMTYPE),
            entry("srv/bin/", mode=0o1777),
            entry("etc/ld.so.preload", b"/lib/evil.so\n"),
            entry("etc/environment", b"LD_AUDIT=/x.so\n"),
            entry("usr/share/doc/x/README", b"password = 'correct-horse-9'\n"),
            entry("app/settings.py", b"password = 'correct-horse-9'\n"),
        ),
        Env=[
            "LD_PRELOAD=/x.so",
            "LD_LIBRARY_PATH=/opt/lib:",
            "PATH=/bin:/srv/bin:/tmp/x:.",
            "http_proxy=http://me:s3cr3t@p:1",
        ],
    )
    found = scan_image(made, ImageLimits())[0].risks
    assert {(each.rule, each.inside) for each in found if not each.rule.startswith("unchecked/")} == {
        ("image/setuid", "bin/su"),
        ("image/setuid", "bin/ping"),
        ("image/credential-file", "root/.ssh/id_ed25519"),
        ("environment/loader", "etc/ld.so.preload"),
        ("environment/loader", "etc/environment"),
        ("environment/loader", "ENV"),
        ("image/library-path", "ENV"),
        ("image/search-path", "ENV"),
        ("secret/value", "ENV"),
        ("secret/value", "app/settings.py"),
    }
    assert sum(each.rule == "image/search-path" for each in found) == 3


@pytest.mark.parametrize("kind", ["directory", "squashfs"])
def test_squashfs_files_and_root_directories(kind, tmp_path):
    root = tmp_path / "root"
    for member, content in (*RICH, entry("opt/key.env", f"HF_TOKEN={HUGGING_FACE}\n".encode())):
        (root / member.name).parent.mkdir(parents=True, exist_ok=True)
        (root / member.name).write_bytes(content)
    shutil.copy("/bin/busybox", root / "opt/busybox")
    (root / "opt/busybox").chmod(0o4755)
    (root / "opt/out").symlink_to("/etc")
    path = root
    if kind == "squashfs":
        path = tmp_path / "image.sqsh"
        subprocess.run(["mksquashfs", root, path, "-quiet", "-no-progress"], check=True, timeout=60)
    scan, found = scan_image(path, ImageLimits())
    assert {("secret/value", "opt/key.env"), ("image/setuid", "opt/busybox")} <= {
        (r.rule, r.inside) for r in scan.risks
    }
    assert {each.name for each in found.packages} == {"libssl3", "libc6", "py-yaml", "zlib"}
    assert "/etc/" not in "".join(each.inside for each in scan.risks)


def test_packages_are_those_of_the_last_layer_and_the_sbom_says_so(guard, image, tmp_path):
    newer = entry(f"{SITE}/Py_YAML-6.0.dist-info/METADATA", METADATA.replace(b"5.3.1", b"6.0"))
    made = image(layer(*RICH), layer(entry(f"{SITE}/.wh.Py_YAML-5.3.1.dist-info", b""), newer))
    status, risks = guard(made, "--sbom", tmp_path / "sbom.json")
    assert (status, [rule for rule, _ in risks]) == (3, ["unchecked/vulnerabilities"])  # no database is never clean
    bom = json.loads((tmp_path / "sbom.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert [each["purl"] for each in bom["components"] if each["type"] == "library"] == [
        "pkg:conda/zlib@1.3.1",
        "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12",
        "pkg:deb/debian/libssl3@3.0.9-1?arch=amd64&distro=debian-12",
        "pkg:pypi/py-yaml@6.0",
    ]
    opaque = image(layer(*RICH), layer(entry("usr/.wh..wh..opq", b"")))
    assert "py-yaml" not in {each.name for each in scan_image(opaque, ImageLimits())[1].packages}


def test_a_real_database_of_dpkg_and_python_packages_that_it_owns():
    status = Path("/var/lib/dpkg/status").read_text()
    installed = subprocess.run(
        ["dpkg-query", "-Wf", "${db:Status-Status} ${Package} ${Version}\n"], capture_output=True, check=True
    )
    wanted = {
        tuple(line.split()[1:]) for line in installed.stdout.decode().splitlines() if line.startswith("installed ")
    }
    egg = "usr/lib/python3/dist-packages/yaml-6.egg-info/PKG-INFO"
    texts = {
        "var/lib/dpkg/status": status,
        "var/lib/dpkg/info/y.list": f"/.\n/{egg}\n",
        egg: "Name: yaml\nVersion: 6\n",
    }
    assert {(each.name, each.version) for each in packages.inventory(texts).packages} == wanted


def test_apk():
    text = "P:libssl3\nV:3.1.4-r1\nA:x86_64\no:openssl\nF:usr/lib/x.dist-info\nR:METADATA\n\nP:musl\nV:1.2.4-r2\n"
    texts = {"lib/apk/db/installed": text, "usr/lib/x.dist-info/METADATA": "Name: x\nVersion: 1\n"}
    found = packages.inventory(texts | {"etc/os-release": "ID=alpine\nVERSION_ID=3.19.1\n"})
    assert [(each.name, each.origin) for each in found.packages] == [("libssl3", "openssl"), ("musl", "musl")]
    assert vulnerabilities.ecosystem(found.packages[0], found.release) == "Alpine:v3.19"


def test_advisories(guard, image, tmp_path):
    osv = tmp_path / "osv"
    advisory(osv, "CVE-1", "Debian:12", "openssl", {"introduced": "0"}, {"fixed": "3.0.11-1~deb12u1"})
    advisory(osv, "CVE-2", "Debian:12", "glibc", {"introduced": "0"}, {"fixed": "2.36-9+deb12u4"})  # that of the source
    advisory(osv, "CVE-3", "Debian:11", "openssl", {"introduced": "0"})
    advisory(osv, "CVE-4", "Debian:12", "openssl", {"introduced": "0"}, withdrawn="2024-01-01T00:00:00Z")
    advisory(osv, "CVE-5", "Debian:12", "openssl", {"introduced": "0"})
    advisory(osv, "CVE-6", "PyPI", "py.yaml", {"introduced": "5.1"}, {"fixed": "nonsense"})
    made = image(layer(*RICH))
    status, risks = guard(made, "--osv", osv)
    assert status == 1
    assert risks.pop(("vulnerability/fixed", "openssl 3.0.9-1 CVE-1")) == "CVE-1, fixed in 3.0.11-1~deb12u1"
    assert risks.pop(("vulnerability/unfixed", "openssl 3.0.9-1 CVE-5"))
    assert "cannot be compared" in risks.pop(("unchecked/vulnerabilities", "py-yaml 5.3.1"))
    assert risks == {("unchecked/vulnerabilities", ""): "no advisory is there for packages of conda"}
    policy = tmp_path / "policy.toml"
    allow = '[levels]\n"unchecked/*" = "ignore"\n[[allow]]\nrule = "vulnerability/*"\ninside = "*CVE-1"\nreason = "r"\n'
    policy.write_text(f"{allow}expires = 2999-01-01\n")
    assert guard(made, "--osv", osv, "--policy", policy)[0] == 0
    (osv / "torn.json").write_text("{")
    status, said = guard(made, "--osv", osv)
    assert status == 2
    assert "torn.json" in said


@pytest.mark.parametrize(
    ("place", "version", "events", "fix"),
    [
        ("Debian", "1.0~rc1-1", "introduced=0 fixed=1.0-1", "1.0-1"),
        ("Debian", "1:0.9", "introduced=0 fixed=2.0", None),
        ("Debian", "2.36-9+deb12u10", "introduced=0 fixed=2.36-9+deb12u4", None),
        ("Alpine", "1.36.1-r2", "introduced=0 fixed=1.36.1-r10", "1.36.1-r10"),
        ("Alpine", "1.1.1w-r1", "introduced=0 fixed=1.1.1k-r0", None),
        ("Alpine", "2.0_rc1-r0", "introduced=0 fixed=2.0-r0", "2.0-r0"),
        ("PyPI", "1.0.dev1", "introduced=1.0 fixed=1.1", None),
        ("PyPI", "2.0rc1", "introduced=0 fixed=2.0", "2.0"),
        ("PyPI", "1.10", "introduced=1.9 last_affected=1.10", ""),
        ("PyPI", "1.10.post1", "introduced=1.9 last_affected=1.10", None),
        ("PyPI", "3.1", "fixed=3.2 introduced=3.0 fixed=2.1 introduced=0", "3.2"),
        ("PyPI", "2.5", "fixed=3.2 introduced=3.0 fixed=2.1 introduced=0", None),
    ],
)
def test_the_order_of_versions(place, version, events, fix):
    told = [dict([each.split("=")]) for each in events.split()]
    assert vulnerabilities.first_fix(version, told, vulnerabilities._ORDERS[place]) == fix


def test_an_advisory_of_another_form_is_told(tmp_path):
    advisory(tmp_path / "osv", "CVE-1", "PyPI", "x", affected="all")
    with pytest.raises(ConfigError, match="OSV schema"):
        vulnerabilities.match(packages.inventory({}), tmp_path / "osv")


SPEC = """
Name: {name}
Epoch: 1
Version: 3.0.7
Release: 2.el9
Summary: a library
License: none
BuildArch: noarch
%description
A library.
%package libs
Summary: its parts
%description libs
Parts.
%files
%files libs
"""


@pytest.fixture(scope="module")
def rpm_database(tmp_path_factory):
    """A database as rpm itself writes it, of two packages of one source."""
    top = tmp_path_factory.mktemp("rpm")
    (top / "made.spec").write_text(SPEC.format(name="openssl"))
    build = ["rpmbuild", "-bb", "--define", f"_topdir {top}", top / "made.spec"]
    subprocess.run(build, check=True, capture_output=True)
    root = top / "root"
    install = ["rpm", "--root", root, "--dbpath", "/var/lib/rpm", "--nodeps", "--install"]
    subprocess.run([*install, *sorted(top.glob("RPMS/noarch/*.rpm"))], check=True, capture_output=True)
    return (root / "var/lib/rpm/rpmdb.sqlite").read_bytes()


@pytest.mark.parametrize(
    "case",
    [
        ('ID="almalinux"\nVERSION_ID="9.4"', "AlmaLinux:9", "openssl-libs", "1:3.0.7-6.el9", True),
        ('ID="rocky"\nVERSION_ID="9.4"', "Rocky Linux:9", "openssl", "1:3.0.7-6.el9", True),
        ('ID="rhel"\nVERSION_ID="9.4"', "Red Hat:enterprise_linux:9::baseos", "openssl", "1:3.0.7-6.el9", True),
        ('ID="rocky"\nVERSION_ID="9.4"', "Rocky Linux:9", "openssl", "1:3.0.7-2.el9", False),
        ('ID="rocky"\nVERSION_ID="9.4"', "Rocky Linux:9", "openssl", "3.0.8-1.el9", False),
    ],
)
def test_packages_of_rpm_and_their_advisories(rpm_database, guard, image, tmp_path, case):
    release, ecosystem, name, fixed, found = case
    made = image(layer(entry("etc/os-release", release.encode()), entry("var/lib/rpm/rpmdb.sqlite", rpm_database)))
    advisory(tmp_path / "osv", "CVE-1", ecosystem, name, {"introduced": "0"}, {"fixed": fixed})

    _, risks = guard(made, "--osv", tmp_path / "osv", "--sbom", tmp_path / "sbom.json")

    assert {inside for rule, inside in risks if rule == "vulnerability/fixed"} == (
        {f"{name} 1:3.0.7-2.el9 CVE-1"} if found else set()
    )
    assert "unchecked/packages" not in {rule for rule, _ in risks}
    urls = {each.get("purl") for each in json.loads((tmp_path / "sbom.json").read_text())["components"]}
    kind = release.partition('"')[2].partition('"')[0]
    assert f"pkg:rpm/{kind}/openssl-libs@1:3.0.7-2.el9?arch=noarch&distro={kind}-9.4" in urls


def test_a_damaged_database_of_rpm_is_never_clean(rpm_database, image):
    path = "var/lib/rpm/rpmdb.sqlite"
    for damaged in (b"\0", rpm_database[: len(rpm_database) // 2], rpm_database.replace(b"Packages", b"Pancakes")):
        assert ("unchecked/packages", path) in scanned(image(layer(entry(path, damaged))))
    for other in ("var/lib/rpm/Packages", "usr/lib/sysimage/rpm/Packages.db", f"{path}-wal"):
        assert ("unchecked/packages", other) in scanned(image(layer(entry(other, b"bytes"))))


def test_what_is_not_read_is_never_clean(image):
    assert ("unchecked/packages", "") in scanned(image(busybox_layer()))
    assert ("unchecked/packages", "var/lib/dpkg/status") in scanned(image(layer(entry("var/lib/dpkg/status", b"\0"))))
    for torn in (b"{", b"[]", b"[" * 100_000):
        assert ("unchecked/packages", "a/conda-meta/x.json") in scanned(
            image(layer(entry("a/conda-meta/x.json", torn)))
        )
    large = entry("large.txt", b"x" * (17 << 20))
    assert ("unchecked/size", "large.txt") in scanned(image(layer(large)))


def _blob(made, old, new):
    """Replace a layer's bytes behind the manifest's back."""
    (made / "blobs/sha256" / hashlib.sha256(gzip.compress(old, 1, mtime=0)).hexdigest()).write_bytes(new)


def test_layers_that_are_torn_or_others(image):
    good = layer(entry("a", b"x" * 4096))
    packed = gzip.compress(good, 1, mtime=0)
    for bad in (packed[:-9], packed[:40], b"\x1f\x8bnonsense", gzip.compress(layer(entry("b", b"")), 1, mtime=0)):
        made = image(good)
        _blob(made, good, bad)
        assert ("image/broken", "") in scanned(made)
    made = image(good)
    _blob(made, good, packed + b"more")
    assert ("image/limits", "") in scanned(made)
    assert ("image/broken", "../../etc/passwd") in scanned(image(layer(entry("../../etc/passwd", b"x"))))


def test_bombs(image):
    zeros = layer(entry("zeros", b"\0" * (80 << 20)))
    assert ("image/limits", "") in scanned(image(zeros), max_ratio=20)
    assert ("image/limits", "") in scanned(image(zeros), max_bytes=1 << 20)
    assert ("image/limits", "") in scanned(image(layer(entry("a", b""), entry("b", b""))), max_files=1)
    assert ("image/limits", "") not in scanned(image(layer(entry("a", b""), entry("b", b""))), max_files=2)
    assert ("image/limits", "") in scanned(image(_with_large_header()))


def _with_large_header():
    """A layer whose extended header, which a reader keeps whole, is of 2 MiB."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        made.addfile(entry("a", b"", pax_headers={"comment": "x" * (2 << 20)})[0])
    return out.getvalue()


def test_what_is_no_image_is_told(guard, tmp_path):
    (tmp_path / "text").write_text("hello")
    assert guard(tmp_path / "none")[0] == 2
    for path in (tmp_path / "text", archive(tmp_path, tmp_path.parent / f"{tmp_path.name}.tar")):
        status, said = guard(path)
        assert status
        assert "image" in said
    status, said = guard(tmp_path, tmp_path, "--sbom", tmp_path / "x")
    assert (status, (tmp_path / "x").exists()) == (2, False)


TRIVY = {
    "SchemaVersion": 2,
    "Results": [
        {"Target": "os", "Class": "os-pkgs"},
        {
            "Target": "debian",
            "Vulnerabilities": [
                {
                    "VulnerabilityID": "CVE-7",
                    "PkgName": "libssl3",
                    "InstalledVersion": "3.0.9-1",
                    "FixedVersion": "3.0.11",
                },
                {"VulnerabilityID": "CVE-8", "PkgName": "libc6", "InstalledVersion": "2.36-9", "Severity": "LOW"},
            ],
        },
    ],
}
GRYPE = {
    "matches": [
        {
            "vulnerability": {"id": "CVE-9", "severity": "High", "fix": {"versions": ["6.0"], "state": "fixed"}},
            "artifact": {"name": "py-yaml", "version": "5.3.1"},
        }
    ]
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Put a program on PATH that prints what a scanner would, or fails."""

    def install(name, answer, status=0):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return install


def test_scanners_that_are_there_are_asked_and_no_advisory_is_missed_then(guard, image, installed):
    installed("trivy", TRIVY)
    installed("grype", GRYPE)

    status, risks = guard(image(layer(*RICH)))

    assert status == 1
    assert risks["vulnerability/fixed", "libssl3 3.0.9-1 CVE-7"] == "CVE-7, fixed in 3.0.11"
    assert risks["vulnerability/unfixed", "libc6 2.36-9 CVE-8"] == "CVE-8, no fix is known"
    assert ("vulnerability/fixed", "py-yaml 5.3.1 CVE-9") in risks
    assert "unchecked/vulnerabilities" not in {rule for rule, _ in risks}
    assert guard(image(layer(*RICH)), "--no-scanners")[0] == 3


def test_a_scanner_that_fails_or_says_something_else_is_never_clean(guard, image, installed):
    installed("trivy", TRIVY, status=1)
    installed("grype", {"matches": None})

    status, risks = guard(image(layer(*RICH)))

    assert status == 3
    assert {inside for rule, inside in risks if rule == "unchecked/vulnerabilities"} == {"", "trivy", "grype"}
    assert risks["unchecked/vulnerabilities", ""] == "no advisories for 4 packages"
