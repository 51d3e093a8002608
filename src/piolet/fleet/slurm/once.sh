#!/bin/sh
# Run a command once for all: once.sh DIRECTORY ID COMMAND...
# Whoever asks again with the same ID, after the one that asked first was killed, waits until the command has ended and
# is told its exit status; it does not run twice. Only a crash of this machine in between makes it run again.
done=$1/$2.done
exec 9> "$1/$2.lock" || exit 125
flock 9 || exit 125
shift 2
if [ ! -s "$done" ]; then
  "$@" 9>&- < /dev/null
  echo $? > "$done.partial" && mv "$done.partial" "$done" || exit 125
fi
exit "$(cat "$done")"
