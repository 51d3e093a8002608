#!/bin/sh
# Slurm's HealthCheckProgram: says how the fleet judges this node, for slurmd's log. It reads one file, starts no command
# of Slurm and changes nothing; a verdict that is missing or has expired says nothing.
# The exit status is always 0: with any other, newer versions of slurmd do not register when they start.
node=${SLURMD_NODENAME:-$(uname -n)}
read -r verdict expires reason 2> /dev/null < "${0%/*}/nodes/${node%%.*}" || exit 0
[ "$expires" -gt "$(date +%s)" ] 2> /dev/null || exit 0
printf 'piolet: %s is %s: %s\n' "${node%%.*}" "$verdict" "$reason"
