"""Writes model files with the libraries themselves: python real_models.py DIRECTORY, in an environment with torch."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

place = Path(sys.argv[1])
place.mkdir(parents=True, exist_ok=True)
model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.TransformerEncoderLayer(4, 2, 8))
optimizer = torch.optim.AdamW(model.parameters())
model(torch.randn(3, 4)).sum().backward()
optimizer.step()
state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "rng": torch.get_rng_state()}
torch.save(model.state_dict(), place / "state.pt")
torch.save(state, place / "checkpoint.ckpt")
torch.save(model.state_dict(), place / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save(model, place / "module.pth")
kinds = [
    torch.zeros(2, dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.complex64)
]
torch.save(
    [*kinds, torch.eye(3).to_sparse(), nn.Parameter(torch.ones(2)), torch.Size([1]), torch.device("cpu")],
    place / "kinds.pt",
)
torch.jit.save(torch.jit.script(nn.Linear(2, 2)), place / "script.pt")
np.save(place / "array.npy", np.arange(10))
np.save(place / "objects.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
np.savez_compressed(place / "arrays.npz", a=np.ones(3), b=np.zeros((2, 2)))
np.arange(3).dump(place / "dumped.pkl")
