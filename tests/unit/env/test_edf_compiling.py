"""From EDFs to plans: inheritance, expansion, precedence, and what is refused."""

import pytest

from piolet.core.errors import ConfigError
from piolet.env import lock
from piolet.env.image import parse_variables
from piolet.env.model import ImageKind, MountKind


def own_mounts(plan):
    return [mount for mount in plan.mounts if mount.origin != "piolet"]


def test_inheritance(desk):
    desk.write(
        'image = "./nowhere"\nwritable = false\nmounts = ["/a", "/b:/c:ro"]\n[env]\nA = "base"\nB = "base"', "base.toml"
    )
    desk.write(
        'base_environment = "./base.toml"\nimage = "./rootfs"\nmounts = ["/b:/c:ro", "/d"]\n[env]\nB = "own"\nC = ""'
    )
    plan = desk.compile()
    assert plan.image.kind is ImageKind.DIRECTORY
    assert not plan.writable
    assert [(mount.source, mount.target, mount.flags) for mount in own_mounts(plan)] == [
        ("/a", "/a", ()),
        ("/b", "/c", ("ro",)),
        ("/d", "/d", ()),
    ]
    values = {variable.name: (variable.value, variable.origin) for variable in plan.variables}
    assert values["A"] == ("base", f"{desk.directory}/base.toml:5")
    assert values["B"] == ("own", f"{desk.directory}/test.toml:5")
    assert values["C"][0] is None


@pytest.mark.parametrize(
    ("base", "own", "images"),
    [
        ("", 'image = { aarch64 = "./arm", x86_64 = "./x86" }', ("arm", "x86")),
        ('image = "./rootfs"', '[image]\naarch64 = "./${ARM}"', ("arm", "rootfs")),
        ('[image]\naarch64 = "./arm"', 'image = "./rootfs"', ("rootfs", "rootfs")),
        ('image.aarch64 = "./arm"', 'image.x86_64 = "./x86"', ("arm", "x86")),
    ],
)
def test_an_image_for_each_architecture(desk, base, own, images):
    for name in ("arm", "x86"):
        (desk.directory / name).mkdir()
    desk.environ["ARM"] = "arm"
    desk.write(base, "base.toml")
    desk.write(f'base_environment = "./base.toml"\n{own}')
    for architecture, image in zip(("aarch64", "x86_64"), images, strict=True):
        desk.use(arch=architecture)
        plan = desk.compile()
        assert plan.image.path == desk.directory / image
        assert plan.image.origin.startswith(f"{desk.directory}/{'base' if image in base else 'test'}.toml:")


def test_no_image_for_this_architecture(desk):
    desk.use(arch="aarch64")
    desk.write('[image]\nx86_64 = "./rootfs"')
    with pytest.raises(ConfigError) as caught:
        desk.compile()
    assert caught.value.what == "the environment has no image for aarch64, only for x86_64"
    assert "image.aarch64" in caught.value.remedy
    assert caught.value.line == 2


def test_expansion_and_relative_paths(desk):
    plan = desk.compile_text(
        'workdir = "./work"\nmounts = ["${SCRATCH}/x:/data:ro", "./here", "${NO:-/p:q}:/z", "tmpfs:/t:size=1G"]\n'
        '[env]\nA = "$${USER} is ${USER}, $5"\nB = "${NONE:-}"\nC = "${A:-unseen}"'
    )
    assert plan.workdir == f"{desk.directory}/work"
    assert [(mount.kind, mount.source, mount.target) for mount in own_mounts(plan)] == [
        (MountKind.BIND, "/scratch/ada/x", "/data"),
        (MountKind.BIND, f"{desk.directory}/here", f"{desk.directory}/here"),
        (MountKind.BIND, "/p:q", "/z"),
        (MountKind.TMPFS, "", "/t"),
    ]
    assert own_mounts(plan)[3].flags == ("size=1g",)
    values = {variable.name: variable.value for variable in plan.variables}
    assert (values["A"], values["B"], values["C"]) == ("${USER} is ada, $5", None, "unseen")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[overlay]\nsize = "many"', "'many' is not a size"),
        ('[overlay]\nsize = "1g"\ndirectory = "/a"', "a size in memory or a directory"),
        ('writable = false\n[overlay]\nsize = "1g"', "a root that is not writable"),
        ('[overlay]\ndirectory = "a"', "'a' is not an absolute path"),
        ("[overlay]\nsize = 1", "overlay.size must be a string"),
    ],
)
def test_overlays_that_are_refused(desk, text, what):
    with pytest.raises(ConfigError) as caught:
        desk.compile_text(text)
    assert what in caught.value.what


def test_precedence_of_the_image_and_the_locale(desk):
    desk.write("A=image\nB='image 2'\nexport C=3\nnot a line\n", "rootfs/etc/environment")
    plan = desk.compile_text('[env]\nA = "edf"\nLC_ALL = "C.UTF-8"')
    values = {variable.name: variable.value for variable in plan.variables}
    assert values == {"LANG": None, "LANGUAGE": None, "LC_ALL": "C.UTF-8", "A": "edf", "B": "image 2", "C": "3"}


def test_variables_of_an_image():
    found = parse_variables('A="x y"\n1B=2\n\n#C=3\nD=\nE="\n', "here")
    assert [(variable.name, variable.value) for variable in found] == [("A", "x y"), ("D", ""), ("E", '"')]


def test_mounts_of_the_site_come_before_the_users(desk):
    desk.use(mounts=("/site:/site:ro",))
    assert [mount.target for mount in own_mounts(desk.compile_text('mounts = ["/own"]'))] == ["/site", "/own"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("entrypoint = true", "entrypoint = true"),
        ('devices = ["gpu0"]', 'device "gpu0" is neither'),
        ("[[start]]\ncommand = []", "start[0].command must be a string for the shell, or an array of words, not []"),
        ('[[start]]\nper = "task"', "command is missing"),
        ('[[start]]\ncommand = "true"\ntimeout = 3', 'unknown key "start[0].timeout"'),
        ('start = ["true"]', "start must be tables"),
        ('[require]\npaths = ["data"]', "'data' is not an absolute path"),
        ('[require]\ndriver = "new"', "'new' is not a version"),
        ('[require]\nlibs = ["libm.so"]', 'unknown key "require.libs"'),
        ('mounts = ["/a:/b:shared"]', 'mount flag "shared" cannot be honoured'),
        ('mounts = ["/no/i.sqsh:/b:sqsh"]', "no squashfs file to mount"),
        ('mounts = ["./test.toml:/b:ro+sqsh"]', "not a squashfs image"),
        ('mounts = ["./rootfs:/b:sqsh"]', "no squashfs file to mount"),
        ('mounts = ["/a:/b:c:d"]', "is not a mount"),
        ('mounts = ["/a:/"]', "cannot replace the root"),
        ('mounts = ["rel:/b"]', "'rel' is not a path"),
        ('mounts = ["tmpfs:/b:size=lots"]', 'a tmpfs does not know "size=lots"'),
        ('[env]\nA = "${B"', "is not a reference to a variable"),
    ],
)
def test_refused(desk, text, what):
    with pytest.raises(ConfigError) as caught:
        desk.compile_text(text)
    assert what in caught.value.what
    assert caught.value.remedy
    assert caught.value.line


@pytest.mark.parametrize(
    "text",
    [
        "entrypoint = false",
        'devices = ["/dev/nvidia0"]',
        '[annotations.com.hooks.ssh]\nenabled = "false"\nport = 15263',
        "[annotations]\norg.example.note = true",
        'mounts = ["/a:/b:ro+private+rbind+x-create=dir"]',
    ],
)
def test_harmless(desk, text):
    assert desk.compile_text(text).image.path == desk.directory / "rootfs"


@pytest.mark.parametrize(
    ("image", "what", "remedy"),
    [
        ("", "the environment has no image", "give one"),
        ("Ubuntu:latest", "names are in lower case", "REGISTRY/IMAGE:TAG"),
        ("localhost/none", "no such image in the store", "import or build it"),
        ("./gone.sqsh", "no such image", "check the path"),
        ("torch.sqsh", "is a bare name", "set env.images"),
        ("./text.sqsh", "not a squashfs image", "mksquashfs"),
        ("text.sqsh", "not in the site's directory", "write ./text.sqsh"),
    ],
)
def test_images_that_cannot_be_used(desk, image, what, remedy):
    desk.write("text", "text.sqsh")
    desk.write(f'image = "{image}"')
    with pytest.raises(ConfigError) as caught:
        desk.compile()
    assert what in caught.value.what
    assert remedy in caught.value.remedy


def test_a_bare_name_is_an_image_of_the_site(desk):
    (desk.directory / "images/torch.sqsh").mkdir(parents=True)
    desk.use(images=desk.directory / "images")
    desk.write('image = "torch.sqsh"')
    assert desk.compile().image.path == desk.directory / "images/torch.sqsh"
    desk.write('image = "troch.sqsh"')
    with pytest.raises(ConfigError) as caught:
        desk.compile()
    assert caught.value.remedy == 'did you mean "torch.sqsh"?'


def test_lock_has_every_value_with_its_origin(desk):
    plan = desk.compile_text('mounts = ["/a"]\n[env]\nA = "b"')
    record = lock(plan, environ=desk.environ)
    rows = {row["key"]: row for row in record["values"]}
    assert rows["env.A"] == {"key": "env.A", "value": "b", "origin": f"{desk.directory}/test.toml:4"}
    assert rows["writable"]["origin"] == "default"
    assert all(row["origin"] for row in record["values"])
    assert record["plan_sha256"] == plan.digest
    assert record["image"]["sha256"] is None
