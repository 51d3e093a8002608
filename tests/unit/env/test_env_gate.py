"""The gate that images must pass (setting env.gate)."""

import pytest

from piolet.core.errors import ConfigError
from piolet.core.run import Result
from piolet.env import compile_environment


class Gate:
    """Answers as a gate; remembers what it was asked."""

    def __init__(self, status):
        self.status = status
        self.asked = []

    def run(self, argv, **_):
        self.asked.append(argv)
        return Result(tuple(argv), self.status, "CVE-1 is in it\n", "")


@pytest.fixture
def compiled(desk):
    desk.write('image = "./rootfs"')

    def run(runner=None, *, fetch=True):
        return compile_environment(
            "./test.toml",
            environ=desk.environ,
            cwd=desk.directory,
            settings=desk.settings,
            runner=runner,
            fetch=fetch,
        )

    return run


def test_an_image_that_passes(desk, compiled):
    desk.use(gate=("piolet", "guard", "image"))
    gate = Gate(0)
    assert compiled(gate).image.path == desk.directory / "rootfs"
    assert gate.asked == [["piolet", "guard", "image", str(desk.directory / "rootfs")]]


def test_an_image_that_is_refused(desk, compiled):
    desk.use(gate=("scan",))
    with pytest.raises(ConfigError) as caught:
        compiled(Gate(1))
    assert "`scan` (setting env.gate) refuses image" in caught.value.what
    assert "  | CVE-1 is in it" in caught.value.what
    assert caught.value.line == 1


def test_only_what_is_to_run_is_looked_at(desk, compiled):
    desk.use(gate=("scan",))
    gate = Gate(1)
    compiled(gate, fetch=False)
    assert gate.asked == []


def test_a_gate_that_is_not_there_lets_nothing_pass(desk, compiled):
    desk.use(gate=("no-such-gate",))
    with pytest.raises(ConfigError, match="the gate for images cannot run: no-such-gate was not found"):
        compiled()
