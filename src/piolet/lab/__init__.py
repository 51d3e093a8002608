"""A real Slurm cluster with simulated GPUs on one machine.

The daemons, the scheduler, the namespaces and the processes are real. Simulated, and said so wherever it shows: the
nodes' CPUs and memory (more than the machine has), their GPUs, and their kernel log.

    lab = up(Spec(nodes=4))          bring a lab up, or repair it, or find it up
    lab = open_lab("lab")            a lab that is there
    lab.environment()                what commands need to use it: SLURM_CONF, PIOLET_SITE_CONFIG, PATH
    lab.node_directory("node2")      what the node sees as /run/piolet-node; its GPUs are in gpu/ (piolet.lab.gpus)
    lab.down()                       end its jobs and remove all of it
"""

from piolet.lab.cluster import Lab, list_labs, open_lab
from piolet.lab.ending import down
from piolet.lab.files import notices
from piolet.lab.spec import Isolation, Network, Spec
from piolet.lab.starting import Raised, bring_up, up
from piolet.lab.status import LabStatus, NodeStatus, status

__all__ = [
    "Isolation",
    "Lab",
    "LabStatus",
    "Network",
    "NodeStatus",
    "Raised",
    "Spec",
    "bring_up",
    "down",
    "list_labs",
    "notices",
    "open_lab",
    "status",
    "up",
]
