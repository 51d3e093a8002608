"""A plan is compiled once: srun takes it again as long as nothing that it was made from has changed."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture
def recalled(user_site):
    """Start in an environment; tell whether its plan was compiled, or is the other one that the records then name."""
    here = user_site.directory
    (here / "known").mkdir()
    variables = {"XDG_CACHE_HOME": str(here / "cache"), "EDF_PATH": f"{here}/first:{here}/known", "WORD": "compiled"}
    (here / "known/base.toml").write_text(f'image = "{user_site.image}"')
    edf = here / "known/it.toml"
    edf.write_text('base_environment = "base"\n[env]\nSAID = "${WORD}"\nMORE = "${OTHER:-none}"\n')

    def say(**more):
        return user_site.srun("it", "sh", "-c", "echo $SAID", env=variables | more).stdout.strip()

    def plant():
        """Compile, and put a plan that says so in the place of the one that the records name."""
        assert say() in {"compiled", "recalled"}
        (records,) = (here / "cache/piolet/compiled").iterdir()
        text = records.read_text()
        plan = Path(re.search(r"\0P(.+)\0\Z", text)[1])
        if plan.name != "changed.plan":
            body = re.sub(r"end .*\n\Z", "", plan.read_text()).replace("SAID compiled", "SAID recalled")
            other = user_site.plan(change=lambda _: body)
            records.write_text(text.replace(str(plan), str(other)))

    say.plant, say.here, say.edf = plant, here, edf
    return say


def test_nothing_has_changed(recalled):
    def twice():
        recalled.plant()
        return [recalled(), recalled()]

    assert any(twice() == ["recalled"] * 2 for _ in range(5))  # what others change on the machine meanwhile counts too


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.edf.write_text(it.edf.read_text() + "X = '1'\n"),
        lambda it: (it.here / "known/base.toml").touch(),
        lambda it: (it.here / "image.sqsh").touch(),
        lambda it: (it.here / "cache/piolet/compiled").rename(it.here / "gone"),
        lambda it: [path.write_text(path.read_text()[:-1]) for path in (it.here / "cache/piolet/compiled").iterdir()],
    ],
    ids=["edf", "base", "image", "no cache", "torn"],
)
def test_something_has_changed(recalled, change):
    recalled.plant()
    change(recalled)
    assert recalled() == "compiled"


@pytest.mark.parametrize("more", [{"OTHER": "x"}, {"PIOLET_ENV_MOUNTS": "/etc:/data"}, {"HOME": "/"}])
def test_variables_that_have_changed(recalled, more):
    recalled.plant()
    assert recalled(**more) == "compiled"


def test_an_environment_of_the_name_that_comes_first(recalled):
    recalled.plant()
    (recalled.here / "first").mkdir()
    (recalled.here / "first/it.toml").write_text('base_environment = "base"\n[env]\nSAID = "other"')
    assert recalled() == "other"
