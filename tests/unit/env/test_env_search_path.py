"""`piolet env list`, `diff` and `new`: what is in the search path, what differs, and a file to begin with."""

import json
import os
import pty
import select
import subprocess
import sys
import threading

import pytest

from piolet.core import toml
from piolet.core.errors import UsageError
from piolet.env import edf, starting
from piolet.env.comparing import differences
from piolet.env.listing import State, listed
from piolet.env.lookup import Context


def context(desk):
    return Context(desk.environ, desk.directory, desk.settings)


def test_everything_is_listed_in_the_order_of_the_search_path(desk):
    rootfs = desk.directory / "rootfs"
    desk.environ["EDF_PATH"] = f"{desk.directory}/one:{desk.directory}/none:{desk.directory}/one/file.txt"
    desk.use(search_path=(desk.directory / "site",))
    desk.write(f'image = "{rootfs}"', "one/b.toml")
    desk.write('imag = "x"\nmounts = [1]', "one/a.toml")
    desk.write("", "one/file.txt")
    desk.write(f'image = "{rootfs}"', "site/b.toml")
    desk.write(f'image = "{rootfs}"', "site/.hidden.toml")
    desk.write(f'image = "{rootfs}"', "site/c.toml")
    found = listed(context(desk))
    assert [(entry.name, entry.path.parent.name, entry.state) for entry in found] == [
        ("a", "one", State.BROKEN),
        ("b", "one", State.RIGHT),
        ("", "one", State.BROKEN),
        ("b", "site", State.HIDDEN),
        ("c", "site", State.RIGHT),
    ]
    assert found[0].summary == "2 problems in the environment"
    assert 'did you mean "image"?' in found[0].error
    assert found[1].summary == str(rootfs)
    assert found[2].summary == "cannot be read: Not a directory"


def test_a_broken_file_hides_a_right_one(desk):
    desk.environ["EDF_PATH"] = f"{desk.directory}/one:{desk.directory}/two"
    desk.write("image =", "one/a.toml")
    desk.write(f'image = "{desk.directory}/rootfs"', "two/a.toml")
    assert [entry.state for entry in listed(context(desk))] == [State.BROKEN, State.HIDDEN]


def test_list_command(desk, piolet):
    desk.write(f'image = "{desk.directory}/rootfs"', "home/.edf/good.toml")
    desk.write("[env]\nA = 1", "home/.edf/bad.toml")
    done = piolet("list")
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows[1:]] == [["bad", "broken"], ["good", "right"]]
    entries = {entry["name"]: entry for entry in json.loads(piolet("list", "--format", "json").stdout)}
    assert entries["good"]["image"] == str(desk.directory / "rootfs")
    assert entries["bad"]["error"].count("next:") == 1


def compiled(desk, text):
    return desk.compile_text(text)


def test_no_difference_however_it_is_written(desk):
    desk.write('mounts = ["/b"]\n[env]\nA = "${USER}"', "base.toml")
    one = compiled(desk, 'base_environment = "./base.toml"\nworkdir = "/w/../w"')
    two = compiled(desk, 'workdir = "/w"\nmounts = ["/b:/b:rw+private"]\n[env]\nA = "ada"')
    assert differences(one, two) == ()


def test_differences_are_by_what_a_value_means(desk):
    one = compiled(desk, 'mounts = ["/x", "/a:/m:ro", "/s", "/t"]\n[env]\nA = "1"\nB = ""')
    two = compiled(desk, 'writable = false\nmounts = ["/t", "/s", "/a:/m"]\n[env]\nA = "2"\nB = ""')
    found = {entry.key: (entry.a and entry.a.value, entry.b and entry.b.value) for entry in differences(one, two)}
    assert found.pop("order of mounts")[1].endswith("/t, /s, /m")
    assert found == {
        "writable": ("true", "false"),
        "mount /x": ("/x:/x", None),
        "mount /m": ("/a:/m:ro", "/a:/m"),
        "env.A": ("1", "2"),
    }


def test_mounts_at_one_target_are_compared_together(desk):
    one = compiled(desk, 'mounts = ["/a:/m", "/b:/m"]')
    two = compiled(desk, 'mounts = ["/b:/m"]')
    (found,) = differences(one, two)
    assert (found.key, found.a.value, found.b.value) == ("mount /m", "/a:/m, then /b:/m", "/b:/m")


def test_diff_command(desk, piolet):
    desk.write('image = "./rootfs"\n[env]\nA = "1"', "a.toml")
    desk.write('image = "./rootfs"\n', "b.toml")
    same = piolet("diff", "./a.toml", "./a.toml")
    assert (same.returncode, same.stdout) == (0, "")
    done = piolet("diff", "./a.toml", "./b.toml")
    assert done.returncode == 1
    assert f"{desk.directory}/a.toml:3" in done.stdout
    assert "(none)" in done.stdout
    (entry,) = json.loads(piolet("diff", "./a.toml", "./b.toml", "--format", "json").stdout)
    assert entry == {"key": "env.A", "a": {"value": "1", "origin": f"{desk.directory}/a.toml:3"}, "b": None}
    assert piolet("diff", "./a.toml", "./none.toml").returncode == 2


@pytest.mark.parametrize("template", starting.Template)
def test_a_new_environment_is_right(desk, template):
    path = starting.new("ml", template, str(desk.directory / "rootfs"), context(desk))
    assert path == desk.directory / "home/.edf/ml.toml"
    plan = desk.compile("ml")
    assert plan.image.path == desk.directory / "rootfs"
    assert str(desk.directory) in {mount.target for mount in plan.mounts}


@pytest.mark.parametrize("image", ['/a "b"\\c', "/ä/\x7f\t", "/${USER}"])
def test_any_image_can_stand_in_a_new_environment(tmp_path, image):
    text = starting.text(starting.Template.MPI, image)
    assert edf.from_document(toml.parse(text.encode(), tmp_path)).images["x86_64"].value == image


def test_nothing_is_overwritten_by_any_of_many(desk):
    outcomes = []

    def write(image):
        try:
            starting.new("./new.toml", starting.Template.JAX, image, context(desk))
            outcomes.append(image)
        except UsageError as error:
            outcomes.append(error.what)

    threads = [threading.Thread(target=write, args=(f"/{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if outcome.startswith("/")]
    assert f'image = "{winner}"' in (desk.directory / "new.toml").read_text()
    assert len(outcomes) == 8
    assert not list(desk.directory.glob(".new*"))


@pytest.mark.parametrize(("name", "hint"), [("ml.toml", "no suffix"), ("./ml", "write ./ml.toml"), ("", "no suffix")])
def test_a_name_for_a_new_environment(desk, name, hint):
    with pytest.raises(UsageError) as caught:
        starting.new(name, starting.Template.JAX, "/i", context(desk))
    assert hint in caught.value.remedy


def test_new_command(desk, piolet):
    done = piolet("new", "ml", "--template", "jax", "--image", str(desk.directory / "rootfs"))
    assert done.stdout == f"{desk.directory}/home/.edf/ml.toml\n", done.stderr
    assert piolet("check", "ml").returncode == 0
    again = piolet("new", "ml", "--template", "jax", "--image", "/other")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    missing = piolet("new", "other", "--template", "jax")
    assert missing.returncode == 2
    assert "'--image'" in missing.stderr


def test_on_a_terminal_what_is_missing_is_asked_for(desk):
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "piolet", "env", "new", "./asked.toml"]
    environ = os.environ | desk.environ | {"TERM": "dumb"}
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=desk.directory, env=environ) as process:
        os.close(theirs)
        answer(ours, "What is it for (pytorch, jax, mpi): ", "mpi")
        answer(ours, "or a directory: ", "/the/image")
        answer(ours, "then: piolet env check ./asked.toml", "")
        os.close(ours)
    assert process.returncode == 0
    written = (desk.directory / "asked.toml").read_text()
    assert 'image = "/the/image"' in written
    assert "--mpi=pmix" in written


def answer(terminal, prompt, words):
    """Wait at most 10 s until the terminal shows `prompt`, and type."""
    shown = ""
    while prompt not in shown:
        assert select.select([terminal], [], [], 10)[0], shown
        shown += os.read(terminal, 1000).decode()
    os.write(terminal, f"{words}\n".encode())
