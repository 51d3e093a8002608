#!/bin/sh
# Slurm's TaskProlog: tells a job in its output how the fleet judges its node, and every task in PIOLET_NODE_VERDICT.
# It reads one file, starts no command of Slurm and refuses nothing; a verdict that is missing or has expired says nothing.
node=${SLURMD_NODENAME:-$(uname -n)}
read -r verdict expires reason 2> /dev/null < "${0%/*}/nodes/${node%%.*}" || exit 0
[ "$expires" -gt "$(date +%s)" ] 2> /dev/null || exit 0
echo "export PIOLET_NODE_VERDICT=$verdict"
[ "${SLURM_LOCALID:-0}" = 0 ] || exit 0
printf 'print piolet: %s is %s: %s\n' "${node%%.*}" "$verdict" "$reason"
