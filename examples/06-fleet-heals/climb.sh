#!/bin/sh
# One GPU fails in two jobs. The fleet finds its node suspect, drains it, resets the GPU, vets the node and takes it back.
#
#   climb.sh NAME [NODE]      on the lab of this name, in a directory that is not there yet: climb/
set -eu
here=$(cd "$(dirname "$0")" && pwd)
LAB=$1 node=${2:-node2}
mkdir climb
export LAB PIOLET_ROOT="$PWD/climb/logbooks" PIOLET_FLEET_DATABASE="$PWD/climb/fleet.db"
export PIOLET_FLEET_POLICY="$here/policy.toml" PIOLET_RECORD_FLUSH_S=1
others=$(sinfo --noheader --Node --format=%N | grep -v "^$node\$" | paste -sd,)
said() { printf '\n$ %s\n' "$*" && "$@"; }
turn() { piolet fleet gather && piolet fleet apply; }

piolet fleet gather > climb/before # what ended before this begins is not the node's history here
for job in 1 2; do
  piolet lab gpu --name "$LAB" "$node:0" --clear
  said piolet run -N1 --exclude="$others" --record -- sh "$here/train.sh" || echo "the job failed, as it was to"
done
said piolet fleet gather "$PIOLET_ROOT"
said piolet fleet plan
said piolet fleet approve "$node" --reason "seen twice"
said piolet fleet apply
said sinfo --list-reasons
until turn | grep "^resume $node"; do sleep 0.2; done
until piolet fleet apply | grep "^mark $node"; do sleep 0.2; done
said scontrol show node "$node" | grep ActiveFeatures
sleep 1.1 # Slurm tells whole seconds: what ends in that of the resume is not known to have come after it
for job in 1 2; do srun --nodelist="$node" true; done
until turn | grep "^unmark $node"; do sleep 0.2; done
said piolet fleet explain "$node"
said piolet fleet ledger print
said piolet fleet ledger verify
