#!/bin/bash
# The guard in the CI of your repository: run it from the top of the repository, in any CI system.
# Writes guard-*.sarif for the code host, and fails if anything fails or could not be checked.
#   scripts   job scripts and programs      environments   EDF and service files      models   weights in the repository
set -uo pipefail

policy=()
[ -e guard.toml ] && policy=(--policy guard.toml)
status=0
while read -r kind directory; do
  [ -d "$directory" ] || continue
  piolet guard "$kind" "${policy[@]}" --sarif "guard-$kind.sarif" "$directory" || status=$?
done << 'END'
script scripts
env environments
model models
END
exit "$status"
