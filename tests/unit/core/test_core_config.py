from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from piolet.core import config
from piolet.core.errors import ConfigError, StorageError


@pytest.fixture
def layers(tmp_path):
    """The environment of a user whose two files are `site` and `user`, written by calling it."""

    def write(site: str = "", user: str = "", **variables: str) -> dict[str, str]:
        (tmp_path / "site.toml").write_text(site, encoding="utf-8")
        (tmp_path / "home" / "piolet").mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / "piolet" / "config.toml").write_text(user, encoding="utf-8")
        places = {"PIOLET_SITE_CONFIG": str(tmp_path / "site.toml"), "XDG_CONFIG_HOME": str(tmp_path / "home")}
        return places | variables

    return write


def test_without_any_layer_every_value_is_the_default(tmp_path) -> None:
    loaded = config.load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert loaded.settings == config.Settings()
    assert {origin for _, _, origin in loaded.rows()} == {"default"}


def test_later_layers_win_and_each_value_tells_its_origin(layers, tmp_path) -> None:
    environ = layers(
        "cluster = 'site'\n[vet]\ntimeout_s = 1\n[run]\naccount = 'a'\npartition = 'p'\n",
        "[vet]\ntimeout_s = 2\n[run]\naccount = 'b'\n",
        PIOLET_VET_TIMEOUT_S="3",
    )
    loaded = config.load({"vet.timeout_s": 4, "run.account": None}, environ)
    assert loaded.settings.vet.timeout_s == 4
    assert loaded.settings.run.account == "b"
    assert loaded.settings.run.partition == "p"
    origins = {key: origin for key, _, origin in loaded.rows()}
    assert origins["vet.timeout_s"] == "flag"
    assert origins["run.account"] == f"user file {tmp_path}/home/piolet/config.toml:4"
    assert origins["run.partition"] == f"site file {tmp_path}/site.toml:6"
    assert origins["root"] == "default"
    assert config.load(environ=environ).settings.vet.timeout_s == 3


def test_the_environment_names_its_variable(layers) -> None:
    loaded = config.load(environ=layers(PIOLET_CLUSTER="alpine"))
    assert loaded.origins["cluster"] == "environment PIOLET_CLUSTER"


def test_an_empty_variable_was_not_given(layers) -> None:
    assert config.load(environ=layers("cluster = 'site'", PIOLET_CLUSTER="")).settings.cluster == "site"


def test_lists_in_the_environment_split_paths_at_colons_and_the_rest_at_commas(layers) -> None:
    environ = layers(PIOLET_ENV_SEARCH_PATH="/a:/b", PIOLET_ENV_MOUNTS="/x:/y:ro,/z:/z")
    settings = config.load(environ=environ).settings.env
    assert [str(path) for path in settings.search_path] == ["/a", "/b"]
    assert settings.mounts == ("/x:/y:ro", "/z:/z")


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("\n[vet]\ntimout_s = 3\n", 3, "vet.timout_s", 'did you mean "vet.timeout_s"?'),
        ("clustre = 'x'", 1, "clustre", 'did you mean "cluster"?'),
        ("\n\nzzz = 1", 3, "zzz", "known here: "),
        ("[vet]\n\ntimeout_s = 'soon'", 3, "vet.timeout_s", "must be a number"),
        ("[vet]\ntimeout_s = -1", 2, "vet.timeout_s", "greater than 0"),
        ("[vet]\ntimeout_s = true", 2, "vet.timeout_s", "must be a number"),
        ("[record]\nmetrics = '9418'", 2, "record.metrics", "must be HOST:PORT"),
        ("[run]\ngpus_per_node = 1.5", 2, "run.gpus_per_node", "must be a whole number"),
        ("root = 3", 1, "root", "a path"),
        ("[env]\nmounts = '/a'", 2, "env.mounts", "must be an array"),
        ("[env]\narch = 'arm'", 2, "env.arch", "must be one of aarch64, x86_64"),
        ("[vet]\ntimeout_s = nan", 2, "vet.timeout_s", "must be a number"),
        ("[record]\ninterval_s = 0.01", 2, "record.interval_s", "0.1"),
        ("[record]\nrates = ['gpu']", 2, "record.rates", "FAMILY=HZ, such as gpu=10"),
        ("[record]\nrates = ['gpu=1/0']", 2, "record.rates", "FAMILY=HZ, such as gpu=10"),
        ("[record]\nrates = ['gpu=20']", 2, "record.rates", "from 1/3600 to 10 samples a second"),
        ("[record]\nrates = ['gpu=1', 'gqu=1']", 2, "record.rates", "one of gpu, host, nic"),
        ("[env]\nmounts = ['/a:/a',\n 3]", 2, "env.mounts", "must be a string"),
        ("[[env.mounts]]\nx = 1", 1, "env.mounts", "must be a string"),
        ("vet = 3", 1, "vet", "unknown setting"),
        ("[cluster]\nname = 'x'", 2, "cluster.name", "unknown setting"),
        ("a = = 1", 1, "", "not valid TOML"),
        ("cluster = 'a'\ncluster = 'b'", 2, "", "Cannot overwrite"),
    ],
)
def test_a_mistake_in_a_file_is_found_at_its_line(layers, text, line, key, said) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(environ=layers(text))
    assert caught.value.line == line
    assert caught.value.key == key
    assert caught.value.path.endswith("/site.toml")
    assert said in str(caught.value)
    assert caught.value.remedy


def test_a_file_that_is_not_utf8_is_a_config_error(layers, tmp_path) -> None:
    environ = layers()
    (tmp_path / "site.toml").write_bytes(b"cluster = 'caf\xe9'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(environ=environ)


def test_a_wrong_value_in_the_environment_names_the_variable(layers) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(environ=layers(PIOLET_RUN_GPUS_PER_NODE="four"))
    assert caught.value.path == "$PIOLET_RUN_GPUS_PER_NODE"
    assert "'four'" in caught.value.what


def test_a_wrong_flag_names_the_command_line(layers) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({"vet.timeout_s": "x"}, layers())
    assert caught.value.path == "command line"


def test_an_unknown_flag_is_refused(layers) -> None:
    with pytest.raises(ConfigError, match=r"vet\.nothing"):
        config.load({"vet.nothing": 1}, layers())


def test_a_site_file_that_was_named_must_exist(tmp_path) -> None:
    with pytest.raises(StorageError) as caught:
        config.load(environ={"PIOLET_SITE_CONFIG": str(tmp_path / "gone.toml"), "XDG_CONFIG_HOME": str(tmp_path)})
    assert caught.value.where == str(tmp_path / "gone.toml")


def test_the_user_file_is_in_the_home_directory_unless_xdg_says_otherwise() -> None:
    assert str(config.user_file({"HOME": "/home/u"})) == "/home/u/.config/piolet/config.toml"
    assert str(config.user_file({"HOME": "/home/u", "XDG_CONFIG_HOME": "/x"})) == "/x/piolet/config.toml"
    assert not config.user_file({}).exists()


@pytest.mark.parametrize("key", config.known_keys())
def test_every_setting_is_described(key) -> None:
    assert config.describe(key)


def test_settings_cannot_be_changed_after_loading(layers) -> None:
    settings = config.load(environ=layers()).settings
    with pytest.raises(FrozenInstanceError):
        settings.cluster = "x"
