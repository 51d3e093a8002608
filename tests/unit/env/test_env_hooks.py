"""Hooks: which annotations switch which on, what they add to the plan, and what is refused."""

import json

import pytest

from piolet.core.errors import ConfigError, UsageError
from piolet.env import hook_files

HOOK = """
annotation = "com.hooks.net"
summary = "a network"
implies = ["com.hooks.cxi"]
libraries = ["/opt/${variant}/libnet.so", "libother.so.1?"]
mounts = ["/opt/${variant}:/opt/net:ro"]
[keys.variant]
choices = ["a", "b"]
[env]
NET = "${variant}"
[derive]
RANK = "SLURM_PROCID"
HEAD = "first-node SLURM_STEP_NODELIST"
[[start]]
command = "net up ${variant}"
timeout_s = 5
[[stop]]
command = ["net", "down", "${variant}"]
[require]
variables = ["NET"]
"""


@pytest.fixture
def site(desk):
    desk.write(HOOK, "hooks/net.toml")
    desk.use(hooks_path=(desk.directory / "hooks",))
    return desk


def words(plan):
    return [line.words for line in plan.lines]


def annotated(*lines):
    return "[annotations.com.hooks]\n" + "\n".join(lines)


def test_a_hook_becomes_lines_of_the_plan(site):
    plan = site.compile_text(annotated('net.variant = "b"', "cxi.enabled = false"))
    assert words(plan) == [
        ("library", "net", "/opt/b/libnet.so", "-"),
        ("library", "net", "libother.so.1", "optional"),
        ("derive", "RANK", "copy", "SLURM_PROCID"),
        ("derive", "HEAD", "first-node", "SLURM_STEP_NODELIST"),
        ("require", "net", "variable", "NET"),
        ("start-node", "net", "5", "/bin/sh", "-c", "net up b"),
        ("stop", "net", "60", "net", "down", "b"),
    ]
    assert ("/opt/b", "/opt/net", ("ro",)) in [(mount.source, mount.target, mount.flags) for mount in plan.mounts]
    assert plan.lines[0].origin == f"{site.directory}/hooks/net.toml:5"
    assert {variable.name: variable.value for variable in plan.variables}["NET"] == "b"


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        (['net.variant = "a"'], {"net", "cxi"}),
        (['net.variant = "a"', "net.enabled = true"], {"net", "cxi"}),
        (['net.variant = "a"', 'net.enabled = "off"'], set()),
        (['net.variant = "a"', "cxi.enabled = false"], {"net"}),
        (["cxi.enabled = true"], {"cxi"}),
    ],
)
def test_configuring_a_hook_switches_it_on_and_false_always_wins(site, annotations, names):
    lines = words(site.compile_text(annotated(*annotations)))
    assert {line[1] for line in lines if line[0] == "library"} == names


NET_A = annotated('net.variant = "a"')


def test_the_edf_wins_over_its_hooks_and_the_users_hooks_over_the_sites(site):
    own = HOOK.replace('NET = "${variant}"', 'NET = "own"\nMORE = "x"').replace('implies = ["com.hooks.cxi"]', "")
    site.write(own, "home/.config/piolet/hooks.d/net.toml")
    plan = site.compile_text(f'[env]\nMORE = "edf"\n{NET_A}')
    values = {variable.name: variable.value for variable in plan.variables}
    assert (values["NET"], values["MORE"]) == ("own", "edf")


def test_hooks_of_the_site_are_on_unless_switched_off(desk):
    desk.use(hooks=("pytorch_remap_vars",))
    assert ("derive", "RANK", "copy", "SLURM_PROCID") in words(desk.compile_text(""))
    assert not desk.compile_text("[annotations]\ncom.pyxis.pytorch_remap_vars = false").lines
    desk.use(hooks=("pytorch",))
    with pytest.raises(ConfigError, match='no hook "pytorch"'):
        desk.compile_text("")


def test_hooks_for_images_that_ask_for_them(desk):
    desk.write('kind: nvidia.com/gpu\ndevices: [{name: all, containerEdits: {env: ["A=b"]}}]', "cdi/nvidia.yaml")
    desk.use(hooks=("nvidia",), cdi=(desk.directory / "cdi",))
    assert "A" not in {variable.name for variable in desk.compile_text("").variables}
    desk.write("NVIDIA_VISIBLE_DEVICES=all\n", "rootfs/etc/environment")
    assert "A" in {variable.name for variable in desk.compile_text("").variables}


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        (annotated("nte.enabled = true"), "no hook knows", 'did you mean "com.hooks.net.enabled"?'),
        (annotated('net.variants = "a"'), "no hook knows", 'did you mean "com.hooks.net.variant"?'),
        (annotated('net.variant = "c"'), 'com.hooks.net.variant cannot be "c"', "known here: a, b"),
        (annotated("net.enabled = true"), "hook net needs the annotation com.hooks.net.variant", "give it, or"),
        (annotated('ssh.authorize_ssh_key = "no.pub"'), "no such file", "check the path"),
    ],
)
def test_annotations_that_are_refused(site, text, what, remedy):
    with pytest.raises(ConfigError) as caught:
        site.compile_text(text)
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert caught.value.line


def test_a_hook_that_needs_a_writable_container(desk):
    desk.write("key", "id.pub")
    text = annotated('ssh.authorize_ssh_key = "./id.pub"')
    assert any(line.key == "start-node" for line in desk.compile_text(text).lines)
    with pytest.raises(ConfigError, match="hook ssh needs a writable container"):
        desk.compile_text(f"writable = false\n{text}")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "summary is missing"),
        ("librarys = []", 'unknown key "librarys"'),
        ("libraries = 'a'", "libraries must be an array of strings"),
        ("keys.a.defualt = 'b'", 'unknown key "keys.a.defualt"'),
        ("derive.RANK = 'middle-node A'", "derives nothing"),
        ("env.'a b' = 'c'", "is not the name of a variable"),
        ("[[stop]]\nper = 'job'\ncommand = 'a'", "stop[0].per must be one of node, task"),
        ("switch = 'com.hooks.a.b'", "an annotation or a switch"),
    ],
)
def test_a_hook_file_that_is_wrong(desk, text, what):
    summary = 'summary = "s"' if text else ""
    path = desk.write(f"annotation = 'com.hooks.a'\n{summary}\n{text}", "a.toml")
    with pytest.raises(UsageError) as caught:
        hook_files.read(path)
    assert what in str(caught.value)


def test_the_shipped_hooks_are_right_and_listed(piolet):
    listed = {hook["name"]: hook for hook in json.loads(piolet("hooks", "--format", "json").stdout)}
    wanted = "cxi aws_ofi_nccl ssh nvidia_cuda_mps dcgm slurm netstack nvidia amd pytorch_remap_vars entrypoint_log"
    assert set(wanted.split()) == set(listed)
    assert "com.hooks.ssh.port" in listed["ssh"]["annotations"]
    assert "com.hooks.ssh.enabled" in piolet("hooks").stdout
