"""Writes checkpoints with PyTorch's own writers; run by the Python that has PyTorch: real_checkpoints.py DIRECTORY."""

import sys
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

warnings.simplefilter("ignore")  # it is for one process, and says that there is no process group
root = Path(sys.argv[1])
state = {
    "model": {"weight": torch.ones(64, 64), "bias": torch.ones(8, dtype=torch.bfloat16)},
    "optimizer": {"lr": 0.1, "moment": torch.zeros(64, 64)},
}
dcp.save(state, checkpoint_id=root / "torch_dist")

DP = 2
for stage in (1, 3):
    directory = root / f"deepspeed{stage}"
    directory.mkdir()
    model = {
        "module": {"weight": torch.ones(64, 64)},
        "optimizer": None,
        "dp_world_size": DP,
        "mp_world_size": 1,
        "ds_config": {"zero_optimization": {"stage": stage}},
        "ds_version": "0.17.0",
    }
    prefixes = [f"zero_pp_rank_{rank}_" for rank in range(DP)] if stage == 3 else [""]
    for prefix in prefixes:
        torch.save(model, directory / f"{prefix}mp_rank_00_model_states.pt")
    for rank in range(DP):
        optimizer = {"optimizer_state_dict": {"zero_stage": stage, "partition": torch.zeros(2048)}}
        torch.save(optimizer, directory / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
