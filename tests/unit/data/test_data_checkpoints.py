"""Which checkpoints are complete, on files of the real writers cut short; what goes, and that nothing else does.

PyTorch writes the files of torch_dist and DeepSpeed (the latter under DeepSpeed's names, without DeepSpeed), and
safetensors and TensorStore write theirs; the directories of Orbax follow its documentation around a real OCDBT.
"""

import io
import json
import os
import pickle
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tensorstore
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from piolet.cli.main import run_command
from piolet.core.text import size
from piolet.data.checkpoints import inert, prune
from piolet.data.checkpoints.audit import Audit, Checkpoint, audit
from piolet.data.checkpoints.prune import Policy, choose

CHECKOUT = Path(__file__).parents[3]
LONG_AGO_S = 1_700_000_000
FORMATS = ("torch_dist", "deepspeed1", "deepspeed3", "safetensors", "orbax")


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """One complete checkpoint of each format, by name."""
    root = tmp_path_factory.mktemp("checkpoints")
    script = CHECKOUT / "tests/support/real_checkpoints.py"
    subprocess.run([CHECKOUT / ".venv-torch/bin/python", script, root], check=True)
    _write_safetensors(root / "safetensors")
    _write_orbax(root / "orbax")
    return root


def _write_safetensors(directory: Path) -> None:
    directory.mkdir()
    shards = {f"model-0000{number}-of-00002.safetensors": f"layer{number}" for number in (1, 2)}
    for shard, tensor in shards.items():
        save_file({tensor: np.ones((64, 64), np.float32)}, directory / shard)
    index = {"metadata": {"total_size": 32768}, "weight_map": {tensor: shard for shard, tensor in shards.items()}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_orbax(directory: Path) -> None:
    item = directory / "default"
    for base in (item, item / "ocdbt.process_0"):
        base.mkdir(parents=True)
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{base}/"}).result()
        store.write("params.w/0", b"w" * 5000).result()
    (item / "_METADATA").write_text('{"tree_metadata": {}}')
    (directory / "_CHECKPOINT_METADATA").write_text('{"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2}')


@pytest.fixture
def place(written, tmp_path):
    """Copy a checkpoint of a format to DIR/NAME, as old as given."""

    def run(form: str, name: str = "step_100", changed_s: float = LONG_AGO_S) -> Path:
        target = tmp_path / "run" / name
        shutil.copytree(written / form, target)
        _age(target, changed_s)
        return target

    return run


def _age(target: Path, changed_s: float = LONG_AGO_S) -> None:
    for each in (*target.rglob("*"), target):
        os.utime(each, (changed_s, changed_s))


def faults(path: Path) -> tuple[str, ...]:
    (found,) = audit(path.parent).checkpoints
    return found.faults


def cut(path: Path, by: int = 1) -> None:
    os.truncate(path, path.stat().st_size - by)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("torch_dist", "torch_dist"),
        ("deepspeed1", "DeepSpeed"),
        ("deepspeed3", "DeepSpeed"),
        ("safetensors", "safetensors"),
        ("orbax", "Orbax"),
    ],
)
def test_what_the_writers_write_is_complete(place, form, name):
    (found,) = audit(place(form).parent).checkpoints
    assert (found.formats, found.faults, found.step) == ((name,), (), 100)


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("torch_dist", ".metadata"),
        ("torch_dist", "__0_0.distcp"),
        ("deepspeed1", "mp_rank_00_model_states.pt"),
        ("deepspeed1", "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"),
        ("deepspeed3", "zero_pp_rank_1_mp_rank_00_model_states.pt"),
        ("safetensors", "model-00002-of-00002.safetensors"),
        ("safetensors", "model.safetensors.index.json"),
        ("orbax", "default/manifest.ocdbt"),
        ("orbax", "_CHECKPOINT_METADATA"),
    ],
)
def test_a_byte_less_is_torn_and_the_file_is_named(place, form, file):
    path = place(form)
    cut(path / file)
    assert file in faults(path)[0]


@pytest.mark.parametrize("form", FORMATS)
def test_every_file_cut_to_nothing_or_half_is_torn(place, form):
    path = place(form)
    judged = [each for each in path.rglob("*") if each.is_file() and "d" not in each.relative_to(path).parts]
    for each in judged:
        content = each.read_bytes()
        for kept in (0, len(content) // 2):
            each.write_bytes(content[:kept])
            assert faults(path), f"{each} with {kept} bytes"
        each.write_bytes(content)
    assert len(judged) >= 2
    assert faults(path) == ()


@pytest.mark.parametrize(
    ("form", "file", "said"),
    [
        ("torch_dist", ".metadata", "there is no .metadata"),
        ("torch_dist", "__0_0.distcp", "__0_0.distcp is missing"),
        ("deepspeed1", "mp_rank_00_model_states.pt", "no model states"),
        ("deepspeed1", "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt", "data rank 1, model rank 0"),
        ("deepspeed3", "zero_pp_rank_1_mp_rank_00_model_states.pt", "model states of data rank 1"),
        ("safetensors", "model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors is missing"),
        ("orbax", "default/manifest.ocdbt", "not merged"),
    ],
)
def test_a_missing_file_is_told(place, form, file, said):
    path = place(form)
    (path / file).unlink()
    assert said in faults(path)[0]


def test_shards_without_an_index_are_counted_by_their_names(place):
    path = place("safetensors")
    (path / "model.safetensors.index.json").unlink()
    assert faults(path) == ()
    (path / "model-00001-of-00002.safetensors").unlink()
    assert faults(path) == ("model-00001-of-00002.safetensors is missing",)


def test_a_shard_of_another_checkpoint_is_told(place):
    path = place("safetensors")
    save_file({"other": np.ones(1, np.float32)}, path / "model-00002-of-00002.safetensors")
    assert faults(path) == ("model-00002-of-00002.safetensors has no tensor layer2",)


def test_a_temporary_name_of_orbax_is_torn(place):
    assert faults(place("orbax", "100.orbax-checkpoint-tmp-1700000000")) == ("it still has its temporary name",)


def test_parts_below_a_checkpoint_are_judged_too(place):
    path = place("torch_dist", "checkpoint-5/pytorch_model_fsdp_0").parent
    assert faults(path) == ()
    cut(path / "pytorch_model_fsdp_0" / "__0_0.distcp")
    assert "pytorch_model_fsdp_0/__0_0.distcp is cut off" in faults(path)[0]


def test_a_pickle_is_read_without_running_it(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with (tmp_path / "pickle").open("w+b") as stream:
        pickle.dump({"a": Payload(), "b": 1}, stream)
        stream.seek(0)
        assert inert.load(stream)["b"] == 1
    assert not (tmp_path / "ran").exists()


@given(st.binary(max_size=60))
def test_a_pickle_that_ends_early_is_a_value_error(content):
    pickled = pickle.dumps([content, {"a": content}])
    with pytest.raises(ValueError, match="not a whole pickle"):
        inert.load(io.BytesIO(pickled[: len(pickled) // 2]))


@pytest.mark.parametrize("name", ["notes", "run7", "final", "v2"])
def test_a_directory_without_a_step_is_no_checkpoint(place, name):
    found = audit(place("safetensors", name).parent)
    assert (found.checkpoints, found.unknown) == ((), (name,))


def test_what_holds_other_checkpoints_is_none(place):
    place("safetensors", "step_9")
    place("safetensors", "step_9/deep/step_100")
    assert audit(place("safetensors", "step_10").parent).unknown == ("step_9",)


def decided(found: Audit, policy: Policy, now_s: float = time.time()) -> dict[str, tuple[bool, str]]:
    return {one.checkpoint.path.name: (one.delete, one.reason) for one in choose(found, policy, now_s)}


def test_the_newest_the_milestones_and_the_named_stay(place):
    for step in (100, 200, 300, 400, 500):
        run = place("safetensors", f"step_{step}").parent
    (run / "latest").write_text("step_100\n")
    assert decided(audit(run), Policy(keep=2, every=200)) == {
        "step_100": (False, "something points to it"),
        "step_200": (False, "milestone: a multiple of 200"),
        "step_300": (True, "old"),
        "step_400": (False, "of the newest 2"),
        "step_500": (False, "of the newest 2"),
    }


@pytest.mark.parametrize("how", ["text", "megatron", "link"])
def test_every_kind_of_pointer_protects(place, how):
    place("safetensors", "iter_0000001")
    run = place("safetensors", "iter_0000002").parent
    if how == "link":
        (run / "best").symlink_to("iter_0000001")
    elif how == "text":
        (run / "latest").write_text("iter_0000001")
    else:
        (run / "latest_checkpointed_iteration.txt").write_text("1")
    assert not any(delete for delete, _ in decided(audit(run), Policy(keep=1)).values())


def test_torn_ones_go_only_when_old_quiet_and_surpassed(place):
    cut(place("safetensors", "step_1") / "model-00001-of-00002.safetensors")
    cut(place("safetensors", "step_2", time.time()) / "model-00001-of-00002.safetensors")
    run = place("safetensors", "step_3").parent
    cut(place("safetensors", "step_4") / "model-00001-of-00002.safetensors")
    _age(run / "step_1")
    assert decided(audit(run), Policy(keep=1)) == {
        "step_1": (True, "torn"),
        "step_2": (False, "torn, but may be being written"),
        "step_3": (False, "the newest"),
        "step_4": (False, "torn, but no newer one is complete"),
    }


def test_steps_are_compared_within_a_series(place):
    place("safetensors", "epoch_3")
    run = place("safetensors", "step_1000").parent
    assert not any(delete for delete, _ in decided(audit(run), Policy(keep=1)).values())


made = st.builds(
    lambda step, torn, changed_s: Checkpoint(
        Path(f"step_{step}"), step, ("safetensors",), ("torn",) * torn, 1, 1, changed_s
    ),
    st.integers(0, 30),
    st.booleans(),
    st.floats(0, 1e9),
)


@given(
    st.lists(made, unique_by=lambda one: one.step, max_size=12),
    st.integers(1, 5),
    st.none() | st.integers(1, 9),
    st.frozensets(st.integers(0, 30).map("step_{}".format), max_size=3),
)
def test_enough_complete_ones_always_stay(checkpoints, keep, every, pointed):
    found = Audit(Path(), tuple(checkpoints), (), pointed, (), ())
    stay = [one.checkpoint for one in choose(found, Policy(keep, every), 1e9) if not one.delete]
    complete = sorted((one.step for one in checkpoints if not one.faults), reverse=True)
    assert set(complete[:keep]) <= {one.step for one in stay}
    assert {one.path.name for one in checkpoints} & pointed <= {one.path.name for one in stay}
    if not complete:
        assert len(stay) == len(checkpoints)


def test_nothing_is_deleted_without_apply(place, capsys):
    place("safetensors", "step_1")
    run = place("safetensors", "step_2").parent
    (run / "notes").mkdir()
    before = sorted(run.rglob("*"))
    assert run_command(["data", "ckpt", "prune", str(run), "--keep", "1"]) == 0
    said = capsys.readouterr().out
    amount = sum(each.stat().st_blocks * 512 for each in (run / "step_1").iterdir())
    assert f"would delete 1 checkpoint: {size(amount)} in 3 files" in said
    assert "left alone: notes" in said
    assert sorted(run.rglob("*")) == before


def test_apply_deletes_what_the_plan_said_and_no_more(place, capsys):
    place("safetensors", "step_1")
    run = place("deepspeed1", "step_2").parent
    shutil.copytree(run / "step_2", run / "keep_me")
    assert run_command(["data", "ckpt", "prune", str(run), "--keep", "1", "--apply", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == [str(run / "step_1")]
    assert sorted(each.name for each in run.iterdir()) == ["keep_me", "step_2"]


def test_a_deletion_that_was_interrupted_leaves_no_name_and_is_finished(place, monkeypatch):
    place("safetensors", "step_1")
    run = place("safetensors", "step_2").parent
    whole = shutil.rmtree

    def half(path):
        next(path.iterdir()).unlink()
        raise KeyboardInterrupt

    found = audit(run)
    monkeypatch.setattr(prune.shutil, "rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        list(prune.apply(found, choose(found, Policy(keep=1), time.time())))
    assert sorted(each.name for each in run.iterdir()) == [".step_1.deleting", "step_2"]
    monkeypatch.setattr(prune.shutil, "rmtree", whole)
    found = audit(run)
    assert [one.path.name for one in found.checkpoints] == ["step_2"]
    assert list(prune.apply(found, choose(found, Policy(keep=1), time.time()))) == []
    assert [each.name for each in run.iterdir()] == ["step_2"]


def test_what_is_pointed_to_since_the_plan_stays(place):
    place("safetensors", "step_1")
    run = place("safetensors", "step_2").parent
    found = audit(run)
    choices = choose(found, Policy(keep=1), time.time())
    (run / "latest").write_text("step_1")
    assert list(prune.apply(found, choices)) == []
    assert (run / "step_1").is_dir()


def test_the_audit_is_told_in_words(place, capsys):
    path = place("torch_dist")
    assert run_command(["data", "ckpt", "audit", str(path.parent)]) == 0
    cut(path / "__0_0.distcp")
    (path.parent / "latest").write_text("step_200")
    assert run_command(["data", "ckpt", "audit", str(path.parent)]) == 1
    said = capsys.readouterr().out
    assert "step_100: __0_0.distcp is cut off" in said
    assert "something points to step_200, which is not there" in said


def test_no_directory_is_one_clear_error(tmp_path, capsys):
    assert run_command(["data", "ckpt", "audit", str(tmp_path / "none")]) == 2
    assert "no such directory" in capsys.readouterr().err
