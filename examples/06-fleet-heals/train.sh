# A program whose GPU falls off the bus once the recorder samples it, and which fails when the recorder has told of it.
segments() { ls "$PIOLET_ROOT/"*"/$SLURM_JOB_ID/$1" 2> /dev/null | wc -l; }
wait_for_more() { while [ "$(segments "$1")" -le "$2" ]; do sleep 0.1; done; }
wait_for_more telemetry/gpu 0
told=$(segments events)
piolet lab gpu --name "$LAB" "$(hostname):0" --xid 79
wait_for_more events "$told"
exit 1
