"""Tell the recorder how the training goes, in an image that has no Piolet: one line a datagram, in plain Python.

With Piolet installed, `piolet.log(step=step, loss=loss)` and `piolet.phase(name)` do the same.
"""

from __future__ import annotations

import contextlib
import os
import socket


def report(**words: object) -> None:
    """Send `name=value` words, such as step, loss and phase. Without a recorder this does nothing; it never waits."""
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]
    name = os.environ.get("PIOLET_METRICS", "").replace("{node}", node)
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")
    line = " ".join(f"{key}={value}" for key, value in {"rank": rank, **words}.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0)
        sender.sendto(line.encode(), f"\0{name}")
