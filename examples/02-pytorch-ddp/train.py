"""PyTorch's DistributedDataParallel under torchrun, with gloo, on the digits of example 01.

    piolet run -N 4 --env torch --vet ml-training --record -- bash examples/02-pytorch-ddp/launch.sh

launch.sh starts torchrun on each node; MASTER_ADDR and MASTER_PORT come from `piolet run`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "01-first-climb"))

from digits import load_digits
from hints import hint
from report import report

STEPS = 60
BATCH = 256


def main() -> None:
    """Train on this rank's share, print from rank 0, and fail when the loss did not fall."""
    hint("startup", mem=2 << 30)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    images, labels = (torch.from_numpy(array) for array in load_digits())
    images, labels = images[rank::size], labels[rank::size]
    losses = optimise(images, labels, rank)
    dist.barrier()  # nobody leaves while another still talks to it
    if rank == 0:
        print(f"{size} ranks on {os.environ.get('SLURM_NNODES', '1')} nodes, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    dist.destroy_process_group()
    if not losses[-1] < losses[0]:
        raise SystemExit("train.py: the loss did not fall")


def optimise(images: torch.Tensor, labels: torch.Tensor, rank: int) -> list[float]:
    """Run stochastic gradient descent on a new model; return this rank's losses."""
    model = DistributedDataParallel(nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(1, STEPS + 1):
        hint("compute", mem=40 << 30)
        batch = torch.randint(0, len(labels), (BATCH,))
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        report(phase="training", step=step, loss=losses[-1])
        if rank == 0 and step % 20 == 0:
            print(f"step {step} loss {losses[-1]:.4f}", flush=True)
    return losses


if __name__ == "__main__":
    main()
