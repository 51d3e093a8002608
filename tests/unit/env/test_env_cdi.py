"""CDI specifications, in the form that nvidia-ctk 1.17 documents, as lines of a plan."""

import json

import pytest

from piolet.core.errors import ConfigError
from piolet.env import cdi

NVIDIA = """
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  deviceNodes: [{path: /dev/nvidiactl}]
  mounts:
  - hostPath: /usr/lib64/libcuda.so.570.1
    containerPath: /usr/lib64/libcuda.so.570.1
    options: [ro, nosuid, nodev, rbind, rprivate]
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, create-symlinks, --link, "libcuda.so.1::/usr/lib64/libcuda.so", --link=../x::/usr/lib64/x]
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args: [nvidia-ctk, hook, update-ldcache, --folder, /usr/lib64]
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, chmod, --mode, "755", --path, /dev/dri]
devices:
- {name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}
- {name: all, containerEdits: {deviceNodes: [{path: /dev/nvidia0}, {path: /dev/gpu1, hostPath: /dev/nvidia1}]}}
"""


@pytest.fixture
def site(desk):
    desk.write(NVIDIA, "cdi/nvidia.yaml")
    desk.use(cdi=(desk.directory / "cdi", desk.directory / "run"))
    return desk


def test_a_device_becomes_lines_of_the_plan(site):
    plan = site.compile_text('devices = ["nvidia.com/gpu=all"]')
    assert [line.words for line in plan.lines] == [
        ("require", "environment", "path", "/dev/nvidiactl"),
        ("symlink", "libcuda.so.1", "/usr/lib64/libcuda.so"),
        ("symlink", "../x", "/usr/lib64/x"),
        ("ldcache", "/usr/lib64"),
        ("require", "environment", "path", "/dev/nvidia0"),
        ("require", "environment", "path", "/dev/gpu1"),
    ]
    added = [(mount.source, mount.target, mount.flags) for mount in plan.mounts if "cdi" in mount.origin]
    assert ("/usr/lib64/libcuda.so.570.1", "/usr/lib64/libcuda.so.570.1", ("ro",)) in added
    assert ("/dev/nvidia1", "/dev/gpu1", ("dev",)) in added
    assert {variable.name: variable.value for variable in plan.variables}["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_later_directories_win_and_json_is_read(site):
    spec = {"kind": "nvidia.com/gpu", "devices": [{"name": "all", "containerEdits": {"env": ["FROM=run"]}}]}
    site.write(json.dumps(spec), "run/nvidia.json")
    plan = site.compile_text('devices = ["nvidia.com/gpu=all", "nvidia.com/gpu=0"]')
    assert {variable.name: variable.value for variable in plan.variables}["FROM"] == "run"
    assert ("require", "environment", "path", "/dev/nvidia0") in [line.words for line in plan.lines]


@pytest.mark.parametrize(
    ("device", "edit", "what"),
    [
        ("nvidia.com/gpu=al", "", "no CDI device nvidia.com/gpu=al"),
        ("amd.com/gpu=all", "", "no CDI device amd.com/gpu=all"),
        ("nvidia.com/gpu=0", "netDevices: [{hostInterfaceName: a, name: b}]", "cannot honour netDevices"),
        ("nvidia.com/gpu=0", "hooks: [{path: /bin/x, args: [x, reboot]}]", "does not know the hook /bin/x reboot"),
        ("nvidia.com/gpu=0", "mounts: [{hostPath: /a, containerPath: /a, options: [shared]}]", "mount with shared"),
        ("nvidia.com/gpu=0", "mounts: [{hostPath: /a}]", "not as specified"),
        ("nvidia.com/gpu=0", "a: [", "not a CDI specification"),
    ],
)
def test_what_cannot_be_given_is_refused(site, device, edit, what):
    site.write(f"kind: nvidia.com/gpu\ncontainerEdits: {{{edit}}}\ndevices: [{{name: '0'}}]", "cdi/nvidia.yaml")
    with pytest.raises(ConfigError) as caught:
        site.compile_text(f'devices = ["{device}"]')
    assert what in caught.value.what
    assert caught.value.line == 2


def test_nodes_that_know_their_own_devices(site, piolet):
    site.use(cdi_on_nodes=True)
    plan = site.compile_text('devices = ["other.com/thing=all"]')
    assert [line.words for line in plan.lines] == [("include", "/run/piolet/cdi/other.com_thing=all.plan")]
    site.environ["PIOLET_ENV_CDI"] = str(site.directory / "cdi")
    made = piolet("cdi", "--output", str(site.directory / "made")).stdout.splitlines()
    assert made == [f"{site.directory}/made/nvidia.com_gpu={name}.plan" for name in ("0", "all")]
    text = (site.directory / "made/nvidia.com_gpu=0.plan").read_text()
    status = (site.directory / "cdi/nvidia.yaml").stat()
    assert f"source {site.directory}/cdi/nvidia.yaml {status.st_size} {status.st_mtime_ns}\n" in text
    assert "ldcache /usr/lib64\n" in text


def test_names():
    assert cdi.is_name("nvidia.com/gpu=0:1")
    assert not any(map(cdi.is_name, ("nvidia.com/gpu", "gpu=0", "/dev/nvidia0", "a/b=c=d")))
