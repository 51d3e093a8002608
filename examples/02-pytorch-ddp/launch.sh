#!/bin/bash
# Start torchrun on this node: one task a node, PROCESSES_PER_NODE ranks in it.
exec "${TORCH_VENV:?set it to a virtual environment with PyTorch}/bin/torchrun" \
  --nnodes="$SLURM_NNODES" --node-rank="$SLURM_NODEID" --nproc-per-node="${PROCESSES_PER_NODE:-2}" \
  --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \
  "$(dirname "$0")/train.py"
