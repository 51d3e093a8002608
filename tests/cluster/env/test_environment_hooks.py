"""What users switch on in their EDFs, on a Slurm cluster: hooks, start-up commands, entrypoints."""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import oci_images
import pytest

from piolet.env.hook_files import SHIPPED

pytestmark = pytest.mark.cluster

IMAGE = Path(__file__).parents[3] / ".images/demo.sqsh"
"""Debian with Python: an image with the C library of the nodes."""

LISTING = """
image = "{image}"

mounts = [
    "{here}/dataset:{here}/dataset:ro",
    "{here}/scratch/${{USER}}"
]

workdir = "{here}/scratch/${{USER}}/project01_code"
writable = true

[annotations.com.hooks.aws_ofi_nccl]
variant = "cuda12"

[annotations.com.hooks.ssh]
enabled = "true"
authorize_ssh_key = "{key}"
"""


@pytest.fixture
def debian(user_site):
    """The user's site, with an image that has a C library."""
    if not IMAGE.exists():
        pytest.skip("needs the image of the examples (scripts/setup)")
    image = user_site.directory / "debian.sqsh"
    os.link(IMAGE, image) if IMAGE.stat().st_dev == image.parent.stat().st_dev else shutil.copy(IMAGE, image)
    image.chmod(0o644)
    return replace(user_site, image=image)


@pytest.fixture
def slingshot(debian):
    """Libraries and a device in the place of Slingshot's and of the site's NCCL plugin."""
    directory = debian.directory / "lib"
    directory.mkdir()
    (directory / "net.c").write_text("int net(void) { return 1; }\n")
    for name in ("libfabric.so.1", "libcxi.so.1", "libnccl-net.so"):
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, "net.c"], check=True, cwd=directory
        )
    (directory / "cuda12/lib").mkdir(parents=True)
    shutil.copy(directory / "libnccl-net.so", directory / "cuda12/lib")
    hooks = debian.directory / "hooks.d"
    hooks.mkdir()
    cxi = (SHIPPED / "cxi.toml").read_text()
    cxi = cxi.replace('"libfabric.so.1", "libcxi.so.1"', f'"{directory}/libfabric.so.1", "{directory}/libcxi.so.1"')
    (hooks / "cxi.toml").write_text(cxi.replace("/dev/cxi*", "/dev/null"))
    return {"AWS_OFI_NCCL_DIR": str(directory), "PIOLET_ENV_HOOKS_PATH": str(hooks)}


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_the_listings_environment_and_a_real_ssh_client(debian, slingshot):
    here, port = debian.directory, _free_port()
    for name in ("dataset", f"scratch/{debian.user}/project01_code"):
        (here / name).mkdir(parents=True)
    key = here / "id"
    debian.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    edf = debian.edf(LISTING.format(image=debian.image, here=here, key=f"{key}.pub") + f'port = "{port}"\n')
    script = "ls /.piolet/lib; echo $NCCL_NET; pwd; touch up; while [ ! -e done ]; do sleep 0.1; done"
    (here / f"scratch/{debian.user}/project01_code").chmod(0o777)
    work = here / f"scratch/{debian.user}/project01_code"
    step = subprocess.Popen(
        ["srun", "-N1", f"--environment={edf}", "sh", "-c", script],
        cwd=here,
        env=debian.on_lab.environment(debian.user) | slingshot | {"PIOLET_ROOT": str(here / "root")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=debian.user,
    )
    try:
        while step.poll() is None and not (work / "up").exists():
            time.sleep(0.05)
        assert step.poll() is None, step.communicate()
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "BatchMode=yes"]
        words = [word for option in options for word in ("-o", option)]
        said = debian.run(
            "ssh", "-q", *words, "-i", key, "-p", port, f"{debian.user}@127.0.0.1", "cat /etc/os-release; pwd; id -un"
        )
        assert "Debian" in said.stdout
        assert said.stdout.endswith(f"{debian.user}\n")
        denied = debian.run("ssh", "-q", *words, "-i", "/dev/null", "-p", port, f"{debian.user}@127.0.0.1", check=False)
        assert denied.returncode == 255
    finally:
        (work / "done").touch()
        out, err = step.communicate(timeout=60)
    assert step.returncode == 0, err
    assert {"libfabric.so.1", "libcxi.so.1", "libnccl-net.so", "AWS", "Libfabric"} <= set(out.split()), out
    with pytest.raises(OSError, match="refused"):  # the server has ended with its step
        socket.create_connection(("127.0.0.1", port))


def test_a_hook_that_cannot_work_on_the_node_starts_nothing(debian):
    edf = debian.edf(f'image = "{debian.image}"\n[annotations.com.hooks.cxi]\nenabled = true')
    debian.assert_refused(edf, "libraries", "cxi needs lib(fabric|cxi).so.1, which this node does not have")


def test_slurms_commands_in_the_container(debian):
    directory = Path(debian.on_lab.environment()["SLURM_CONF"]).parent
    hook = f'[annotations.com.hooks.slurm]\nconfiguration = "{directory}"\nmunge = "{_munge(directory)}"'
    done = debian.srun(
        debian.edf(f'image = "{debian.image}"\n{hook}'),
        "sh",
        "-c",
        "squeue --noheader --format=%i; cat /etc/os-release",
    )
    assert done.stdout.splitlines()[0].strip().isdigit(), done
    assert "Debian" in done.stdout


def _munge(directory):
    for line in (directory / "slurm.conf").read_text().splitlines():
        if line.startswith("AuthInfo=socket="):
            return Path(line.removeprefix("AuthInfo=socket=")).parent
    return Path("/run/munge")


def test_commands_run_once_a_node_or_in_each_task_and_at_the_end(user_site):
    here = user_site.directory
    own = f'image = "{user_site.image}"\nmounts = ["{here}"]\nworkdir = "{here}"\n'
    steps = (
        '[[start]]\ncommand = "echo $SLURM_NODEID >> nodes"\n'
        '[[start]]\nper = "task"\ncommand = "echo $SLURM_PROCID >> tasks"\n'
    )
    hooks = here / "hooks.d"
    hooks.mkdir()
    (hooks / "end.toml").write_text(
        'switch = "com.pyxis.end"\nsummary = "notes the end"\n[[stop]]\ncommand = "echo $SLURM_NODEID >> ends"\n'
    )
    edf = user_site.edf(f"{own}{steps}[annotations]\ncom.pyxis.end = true")
    done = user_site.srun(
        edf,
        "sh",
        "-c",
        "cat nodes >/dev/null; test ! -e ends; echo ok; exit 4",
        nodes=2,
        flags=["-n4"],
        check=False,
        env={"PIOLET_ENV_HOOKS_PATH": str(hooks)},
    )
    assert (done.returncode, done.stdout) == (4, "ok\n" * 4), done
    for name, lines in (("nodes", "01"), ("tasks", "0123"), ("ends", "01")):
        assert sorted((here / name).read_text().split()) == list(lines)


def test_a_start_up_command_that_fails_starts_nothing(site):
    edf = site.edf(f'image = "{site.image}"\n[[start]]\ncommand = "exit 9"')
    site.assert_refused(edf, "start", "environment: `/bin/sh` ended with status 9", nodes=2)
    edf = site.edf(f'image = "{site.image}"\n[[start]]\nper = "task"\ncommand = "exit 9"')
    site.assert_refused(edf, "start", "environment: `/bin/sh` ended with status 9")
    edf = site.edf(f'image = "{site.image}"\n[require]\npaths = ["/no/such"]')
    site.assert_refused(edf, "require", "environment requires /no/such")


def test_the_entrypoint_of_an_image_runs_before_the_program(user_site):
    script = b'#!/bin/sh\necho "entered with $1 by $FROM as $SLURM_PROCID"\nexec "$@"\n'
    layers = [oci_images.busybox_layer(), oci_images.layer(oci_images.entry("start", script, mode=0o755))]
    wants = {"Env": ["PATH=/bin", "FROM=image"], "Entrypoint": ["/bin/sh", "/start", "/bin/env"]}
    made = oci_images.layout(user_site.directory / "layout", layers, **wants)
    user_site.run(sys.executable, "-m", "piolet", "env", "import", made, "--name", "tool:1")
    own = 'image = "localhost/tool:1"\n'
    done = user_site.srun(user_site.edf(f"{own}entrypoint = true"), "sh", "-c", 'echo "$0 $1"', "a b", "*", nodes=2)
    assert sorted(done.stdout.splitlines()) == ["a b *"] * 2 + [f"entered with /bin/env by image as {n}" for n in "01"]
    assert user_site.srun(user_site.edf(own), "sh", "-c", "exit 3", check=False).returncode == 3
    failing = user_site.srun(user_site.edf(f"{own}entrypoint = true"), "no-such-program", check=False)
    assert failing.returncode == 127


def test_ranks_for_torch(user_site):
    edf = user_site.edf(f'image = "{user_site.image}"\n[annotations]\ncom.pyxis.pytorch_remap_vars = true')
    done = user_site.srun(
        edf, "sh", "-c", "echo $RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR", nodes=2, flags=["--ntasks-per-node=2"]
    )
    rows = sorted(line.split() for line in done.stdout.splitlines())
    assert [row[0] for row in rows] == list("0123")
    assert [row[1] for row in rows] == list("0101")
    assert {row[2] for row in rows} == {"4"}
    assert len({row[3] for row in rows}) == 1


def test_a_step_with_an_environment_in_a_container_is_refused(debian):
    directory = Path(debian.on_lab.environment()["SLURM_CONF"]).parent
    hook = f'[annotations.com.hooks.slurm]\nconfiguration = "{directory}"\nmunge = "{_munge(directory)}"'
    edf = debian.edf(f'image = "{debian.image}"\n{hook}')
    done = debian.srun(edf, "srun", "--overlap", f"--environment={edf}", "touch", debian.marker, check=False)
    assert done.returncode != 0
    assert "this is in a container already" in done.stderr
    assert "call srun --environment in the batch script" in done.stderr
    assert not debian.marker.exists()


MPI = """
import ctypes, os
mpi = ctypes.CDLL("libmpi.so.40", ctypes.RTLD_GLOBAL)
address = lambda name: ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(mpi, name)))
world, whole, plus = map(address, ("ompi_mpi_comm_world", "ompi_mpi_int", "ompi_mpi_op_sum"))
mpi.MPI_Init(None, None)
rank, size, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
mpi.MPI_Comm_rank(world, ctypes.byref(rank))
mpi.MPI_Comm_size(world, ctypes.byref(size))
mpi.MPI_Allreduce(ctypes.byref(rank), ctypes.byref(total), 1, whole, plus, world)
shared = os.path.isdir(os.environ["PMIX_SERVER_TMPDIR"])
print("rank", rank.value, "of", size.value, "sum", total.value, os.environ["SLURMD_NODENAME"], shared, flush=True)
mpi.MPI_Finalize()
"""


def test_open_mpi_over_pmix_across_nodes(debian):
    """The image has no MPI: a hook brings the node's, as a site's would."""
    libraries = Path("/usr/lib/x86_64-linux-gnu")
    if not ((libraries / "libmpi.so.40").exists() and (libraries / "pmix2/lib/libpmix.so").exists()):
        pytest.skip("needs libopenmpi3, openmpi-common and libpmix-dev")
    here = debian.directory
    (here / "mpi.py").write_text(MPI)
    (here / "hooks.d").mkdir()
    (here / "hooks.d/openmpi.toml").write_text(
        'annotation = "com.hooks.openmpi"\nsummary = "Open MPI of the node"\n'
        'libraries = ["libmpi.so.40", "libpmix.so.2"]\n'
        f'mounts = ["{libraries}/openmpi", "{libraries}/pmix2", "/usr/share/openmpi"]\n'
        '[env]\nOMPI_MCA_mca_base_component_show_load_errors = "0"\nOMPI_MCA_btl = "self,tcp"\nOMPI_MCA_pml = "ob1"\n'
    )
    edf = debian.edf(f'image = "{debian.image}"\nmounts = ["{here}"]\n[annotations.com.hooks.openmpi]\nenabled = true')
    done = debian.srun(
        edf,
        "python3",
        here / "mpi.py",
        nodes=2,
        flags=["--mpi=pmix", "--ntasks-per-node=2"],
        env={"PIOLET_ENV_HOOKS_PATH": str(here / "hooks.d")},
    )
    rows = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert [row.rsplit(" ", 2)[0] for row in rows] == [f"rank {rank} of 4 sum 6" for rank in range(4)], done
    assert len({row.split()[-2] for row in rows}) == 2
    assert {row.split()[-1] for row in rows} == {"True"}
