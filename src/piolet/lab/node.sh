#!/bin/sh
# Become one node of a lab and start its slurmd. Piolet runs this in new mount and UTS namespaces (and a network
# namespace with --net netns), so that nothing done here is seen outside, and all of it ends with the node's processes.
#   node.sh LAB NODE
# Set by Piolet where they apply: LAB_SURVIVOR, LAB_CGROUP, LAB_VETH, LAB_BRIDGE, LAB_ADDRESS, LAB_GATEWAY.
set -eu
lab=$1
node=$2
umask 022

# A cgroup namespace below the lab's own cgroups: the node sees them as the whole hierarchy, as a machine does.
if [ -n "${LAB_CGROUP:-}" ] && [ -z "${LAB_IN_CGROUP:-}" ]; then
  for group in /sys/fs/cgroup/*/"$LAB_CGROUP"/"$node"; do echo $$ > "$group/tasks"; done
fi
# A slurmd that died is replaced in the namespaces of the node's steps, which outlive it.
if [ -n "${LAB_SURVIVOR:-}" ]; then
  exec nsenter --target="$LAB_SURVIVOR" --mount --uts --net --cgroup slurmd -N "$node"
fi
if [ -n "${LAB_CGROUP:-}" ] && [ -z "${LAB_IN_CGROUP:-}" ]; then
  LAB_IN_CGROUP=yes exec unshare --cgroup -- /bin/sh "$0" "$@"
fi
if [ -n "${LAB_CGROUP:-}" ]; then
  for group in /sys/fs/cgroup/*/"$LAB_CGROUP"/"$node"; do mount --bind "$group" "${group%"/$LAB_CGROUP/$node"}"; done
fi

hostname "$node"
mount --bind "$lab/nodes/$node" /run/piolet-node
/bin/sh "$lab/etc/prolog.sh"
mount -t tmpfs -o mode=1777,nosuid,nodev none /dev/shm
# For every user, as udev makes it on a real node; a machine without udev keeps it for root.
if [ -c /dev/fuse ]; then
  [ -e "$lab/dev/fuse" ] || mknod -m 666 "$lab/dev/fuse" c 10 229 || [ -e "$lab/dev/fuse" ]
  mount --bind "$lab/dev/fuse" /dev/fuse
fi
# PMIx names its directories by job and step only: two nodes of one machine would collide.
mount --bind "$lab/spool/$node.pmix" "$lab/pmix"

# The near end of a link is born here, the far end with our parent, which is in the machine's own network namespace.
if [ -n "${LAB_VETH:-}" ]; then
  outside="nsenter --net=/proc/$PPID/ns/net ip link"
  $outside delete "$LAB_VETH" 2> /dev/null || true
  ip link add eth0 type veth peer name "$LAB_VETH" netns "$PPID"
  $outside set "$LAB_VETH" master "$LAB_BRIDGE" up
  ip link set lo up
  ip address add "$LAB_ADDRESS" dev eth0
  ip link set eth0 up
  ip route add default via "$LAB_GATEWAY"
fi

# Under this very name: as slurmd-wlm it would ignore GRES.
exec slurmd -N "$node"
