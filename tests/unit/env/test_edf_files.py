"""Reading EDF files strictly, and finding them."""

import pytest

from piolet.core.errors import ConfigError, UsageError


@pytest.mark.parametrize(
    ("text", "what", "remedy", "place"),
    [
        ('imag = "x"', 'unknown key "imag"', 'did you mean "image"?', ":2:1"),
        ("writable = 1", "writable must be true or false", "correct the value", ":2:1"),
        ('mounts = "x"', "mounts must be an array of strings", "correct the value", ":2:1"),
        ('mounts = ["/a",\n  7]', "mounts must hold strings, not 7", "put it in quotes", ":3:3"),
        ("[env]\nA = 1", "variable A must be a string", 'put it in quotes: A = "1"', ":3:1"),
        ('[env]\n"a b" = "c"', '"a b" is not the name of a variable', "use letters", ":3:1"),
        ("[annotations]\na = 1.5", "an annotation must be a string", "put it in quotes", ":3:1"),
        ("image = 1", "image must be a string or a table", "correct the value", ":2:1"),
        ("[image]\nx86-64 = 'i'", 'unknown architecture "x86-64"', 'did you mean "x86_64"?', ":3:1"),
        ("[image]\naarch64 = 1", "image.aarch64 must be a string, not 1", "correct the value", ":3:1"),
        ("image = {}", "image is an empty table", "give image.aarch64", ":2:1"),
        ("image =", "not valid TOML", "correct the file there", ":2"),
    ],
)
def test_strict(desk, text, what, remedy, place):
    desk.write(f"# first line\n{text}")
    with pytest.raises(ConfigError) as caught:
        desk.compile()
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert f"test.toml{place}" in caught.value.where
    assert caught.value.exit_status == 2


def test_all_problems_at_once(desk):
    desk.write('imag = "x"\nmounts = [1, 2]\n[env]\nA = 2')
    with pytest.raises(UsageError, match="4 problems in the environment") as caught:
        desk.compile()
    assert str(caught.value).count("where:") == 4


def test_values_have_problems_at_once_too(desk):
    with pytest.raises(UsageError, match="4 problems") as caught:
        desk.compile_text('workdir = "rel"\nmounts = ["${NOPE}", "/a:/b:rw+privat"]\ndevices = ["nvidia.com/gpu=all"]')
    for part in ("variable NOPE is not defined", 'did you mean "private"', "nvidia.com/gpu=all", "workdir 'rel'"):
        assert part in str(caught.value)


def test_names_are_looked_up_in_order(desk):
    desk.environ["EDF_PATH"] = f"relative/ignored:{desk.directory}/one:{desk.directory}/two"
    desk.use(search_path=(desk.directory / "site",))
    for place in ("home/.edf", "site", "two", "one"):
        desk.write(f'image = "./rootfs"\n[env]\nFROM = "{place}"', f"{place}/ml.toml")
    desk.write('image = "./rootfs"\n[env]\nFROM = "site"', "site/other.toml")
    assert _from(desk.compile("ml")) == "one"
    assert _from(desk.compile("other")) == "site"
    del desk.environ["EDF_PATH"]
    assert _from(desk.compile("ml")) == "home/.edf"


def _from(plan):
    return next(variable.value for variable in plan.variables if variable.name == "FROM")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pytorhc", 'did you mean "pytorch"?'),
        ("pytorch.toml", 'names have no suffix: write "pytorch"'),
        ("here.toml", "write ./here.toml"),
        ("./gone.toml", "check the path"),
        ("", "give a name"),
    ],
)
def test_not_found(desk, name, hint):
    desk.write("", "home/.edf/pytorch.toml")
    desk.write("", "here.toml")
    with pytest.raises(UsageError) as caught:
        desk.compile(name)
    assert hint in caught.value.remedy


def test_a_circle_is_shown(desk):
    desk.write('base_environment = "./b.toml"', "a.toml")
    desk.write('base_environment = ["./a.toml"]', "b.toml")
    with pytest.raises(ConfigError, match=r"in a circle: .*a\.toml -> .*b\.toml -> .*a\.toml") as caught:
        desk.compile("./a.toml")
    assert caught.value.where.endswith("b.toml:1:21 (base_environment[0])")


@pytest.mark.parametrize(("levels", "deep"), [(10, False), (11, True)])
def test_depth(desk, levels, deep):
    for level in range(levels - 1):
        desk.write(f'base_environment = "./{level + 1}.toml"', f"{level}.toml")
    desk.write('image = "./rootfs"', f"{levels - 1}.toml")
    if deep:
        with pytest.raises(ConfigError, match="more than 10 levels"):
            desk.compile("./0.toml")
    else:
        assert desk.compile("./0.toml").name == "0"


def test_a_missing_base_is_reported_where_it_is_named(desk):
    desk.write('\nbase_environment = "gone"')
    with pytest.raises(ConfigError) as caught:
        desk.compile()
    assert "base environment 'gone': no environment \"gone\"" in caught.value.what
    assert caught.value.line == 2
