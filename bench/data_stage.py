"""1 GB onto 16 nodes whose links are shaped: `piolet data stage`, `sbcast`, and every node reading one server.

    sudo python bench/data_stage.py [--nodes 16] [--size 1GB] [--rate 1gbit] [--rounds 3]

Makes a lab whose nodes have an address each, and gives each link `tc tbf` in both directions. The source lies on the
first node's disk for `stage` and `sbcast`; for direct copies the first node serves it over HTTP to all the others, as
a file server with one such link would. Copies go to a directory of the node's own on this machine's disk.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import in_turns, measured, report

from piolet.core.text import parse_size, size
from piolet.lab import Lab, Network, Spec, status, up
from piolet.lab.network import link_name

TARGET = "/run/piolet-node/staged.bin"
DIRECT = """
{python} -m http.server --directory {place} 8765 > /dev/null 2>&1 &
sleep 1
export URL=http://$(hostname -I | cut -d' ' -f1):8765/source.bin
srun --overlap --nodes {others} --ntasks {others} --exclude $SLURMD_NODENAME {python} -c '
import os, shutil, urllib.request
with urllib.request.urlopen(os.environ["URL"]) as far, open("{target}", "wb") as near:
    shutil.copyfileobj(far, near, 1 << 20)'
status=$?
kill %1
exit $status
"""
"""Copies from a file server on the first node, with a second for the server to begin."""
PIOLET = f"{sys.executable} -m piolet data"


def main() -> None:
    """Measure and print."""
    asked = arguments()
    lab = up(Spec(name=f"bench-{secrets.token_hex(3)}", nodes=asked.nodes, gpus=1, network=Network.NETNS))
    try:
        shape(lab, asked.rate)
        with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
            measure(lab, Path(name), asked)
    finally:
        lab.down()


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--size", type=parse_size, default=10**9)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def shape(lab: Lab, rate: str) -> None:
    """Limit each node's link in both directions."""
    pids = status(lab).daemons
    limit = ["root", "tbf", "rate", rate, "burst", "512kb", "latency", "100ms"]
    for node in lab.nodes:
        subprocess.run(["tc", "qdisc", "add", "dev", link_name(lab, node), *limit], check=True)
        inside = ["nsenter", "--target", str(pids[f"slurmd@{node}"]), "--net"]
        subprocess.run([*inside, "tc", "qdisc", "add", "dev", "eth0", *limit], check=True)


def measure(lab: Lab, place: Path, asked: argparse.Namespace) -> None:
    """Measure and report."""
    source = place / "source.bin"
    with source.open("wb") as file:
        for _ in range(asked.size // 10**6):
            file.write(os.urandom(10**6))
    others = asked.nodes - 1
    ways = {
        "stage": f"{PIOLET} stage --chain {source} {TARGET}",
        "sbcast": f"sbcast --force {source} {TARGET}",
        "all read one server": f"bash {place}/direct.sh",
    }
    (place / "direct.sh").write_text(DIRECT.format(python=sys.executable, place=place, target=TARGET, others=others))
    run = {
        name: lambda command=command: once(lab, asked.nodes, place, command, asked.size)
        for name, command in ways.items()
    }
    took_s = in_turns(asked.rounds, run, warm_up=0)
    what = f"stage of {size(asked.size)} on {asked.nodes} nodes, links of {asked.rate}"
    ours, ideal_s = took_s.pop("stage"), asked.size * 8 / rate_of(asked.rate)
    peers = [measured(what, "s", ours, theirs, peer=name, aim="ratio <= 1") for name, theirs in took_s.items()]
    report(__file__, [*peers, measured(what, "s", ours, [ideal_s], peer="one link, computed")], slurm=version(lab))


def rate_of(text: str) -> float:
    """Return bits per second of tc's ``400mbit`` or ``1gbit``."""
    return float(text[:-4]) * {"k": 1e3, "m": 1e6, "g": 1e9}[text[-4]]


def version(lab: Lab) -> str:
    """Return Slurm's version."""
    environment = os.environ | lab.environment()
    return subprocess.run(
        ["sinfo", "--version"], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def once(lab: Lab, nodes: int, place: Path, command: str, size_bytes: int) -> float:
    """Run `command` as a batch job on all nodes and return its seconds; every copy must have its size."""
    script = place / "job.sh"
    script.write_text(
        "#!/bin/bash\n"
        f"began=$(date +%s.%N); {command} || exit 1; ended=$(date +%s.%N)\n"
        f'echo "took $began $ended"; srun --overlap stat --format %s {TARGET}\n'
        f"srun --overlap rm -f {TARGET} /run/piolet-node/.staged.bin.piolet-staged.json\n"
    )
    log = place / "job.log"
    sbatch = ["sbatch", "--wait", f"--nodes={nodes}", f"--ntasks={nodes}", "--chdir=/", f"--output={log}", str(script)]
    subprocess.run(sbatch, env=os.environ | lab.environment(), check=False, capture_output=True)
    time.sleep(1)
    said = log.read_text()
    copies = said.split().count(str(size_bytes))
    if copies < nodes - 1:
        sys.exit(f"only {copies} copies:\n{said}")
    _, began, ended = next(line for line in said.splitlines() if line.startswith("took")).split()
    return float(ended) - float(began)


if __name__ == "__main__":
    main()
