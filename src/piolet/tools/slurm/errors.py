"""What Slurm's commands say when they fail, translated once into errors with a remedy.

    SlurmUnavailable   exit 3   the controller or its database does not answer (a core ToolError)
    UnknownJob         exit 2   Slurm does not know this job, or no longer (a core UsageError)
    RequestRefused     exit 2   Slurm will not do what was asked: partition, account, nodes ... (a core Refused)

Everything else stays a core ToolError, ToolTimeout or ToolMissing. The texts are those of slurm_errno.c and of
the option parsers of Slurm 22.05; Slurm gives all of them the same exit status, so the text must tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from piolet.core.errors import PioletError, Refused, ToolError, ToolMissing, ToolTimeout, UsageError
from piolet.core.run import Result, Runner

TIMEOUT_S = 60.0
"""A controller under load may take a minute; Slurm's own MessageTimeout (10 s) makes most answers earlier."""

NO_SLURM = (
    "Slurm is not installed here: log in to a node of the cluster, or stay on this machine with "
    "`piolet run --local`, or try Slurm itself with `piolet lab up`"
)
_NO_CONFIGURATION = (
    "set SLURM_CONF to the cluster's slurm.conf, or stay on this machine with `piolet run --local`, "
    "or try Slurm itself with `piolet lab up`"
)
_CONTROLLER_DOWN = "ask the operators whether slurmctld runs (`scontrol ping`), then try again; nothing was changed"
_DATABASE_DOWN = "ask the operators whether slurmdbd runs (`sacctmgr ping`), then try again"

_UNAVAILABLE = (
    (r"Unable to contact slurm controller|Slurm backup controller in standby", _CONTROLLER_DOWN),
    (r"Socket timed out on send/recv|Zero Bytes were transmitted or received", _CONTROLLER_DOWN),
    (r"Problem talking to the database|failed to open persistent connection", _DATABASE_DOWN),
    (
        r"accounting storage is disabled",
        "this cluster keeps no accounts; squeue and scontrol know jobs for some minutes",
    ),
    (r"Munge encode failed|Munge decode failed|Protocol authentication error", "ask the operators to check munged"),
    (r"could not establish a configuration source|failed to fetch config|cannot stat file", _NO_CONFIGURATION),
)

_UNKNOWN_JOB = r"Invalid job id|Bad job/step specified|Bad job array element|Job \S+ not found"

_REFUSED = (
    (r"invalid partition (name )?specified", "`sinfo -s` lists the partitions; choose one with --partition"),
    (r"Invalid account|account/partition combination", "`sacctmgr show associations user=$USER` lists your accounts"),
    (r"Invalid qos", "`sacctmgr show qos` lists them; your account must be allowed to use it"),
    (r"Invalid node name specified for job", "a running job only gives nodes back, and never its batch host"),
    (r"Invalid node name|Node \S+ not found", "`sinfo -N` lists the nodes"),
    (
        r"node configuration is not available|Memory specification can not be satisfied",
        "no node has what was asked for: ask for fewer GPUs, CPUs or less memory a node; `sinfo -N -o '%N %c %m %G'`",
    ),
    (
        r"More processors requested than permitted|Node count specification invalid",
        "ask for fewer nodes or tasks; `scontrol show partition` has the limits",
    ),
    (r"[Ii]nvalid generic resource", "`sinfo -o '%P %G'` lists the GPUs; the form is gpu:MODEL:COUNT"),
    (r"time limit is invalid|Invalid --time", "write minutes, HH:MM:SS or D-HH:MM:SS within the partition's limit"),
    (r"violates accounting/QOS policy", "a limit of the account is reached: `sacctmgr show associations user=$USER`"),
    (r"not permitted to use|Access/permission denied", "ask the operators for access, or choose another partition"),
    (r"unrecognized option|invalid option|does not look like a batch script", "correct the request"),
    (r"Job dependency problem", "the job it depends on is unknown: `squeue --me`"),
    (r"DB index is being set", "without accounting Slurm resizes a job once only; with it, try again in a second"),
    (r"Job has already finished|already completing or completed", "the job is over; start a new one"),
    (r"Requested nodes are busy", "try again later, or ask for fewer nodes"),
)  # fmt: skip - one message a line


class SlurmUnavailable(ToolError):  # noqa: N818 - reads as the fact it states
    """Slurm does not answer: its controller, its database, munge, or its configuration."""


class UnknownJob(UsageError):  # noqa: N818 - reads as the fact it states
    """Slurm does not know this job, or has forgotten it."""


class RequestRefused(Refused):
    """Slurm will not do what was asked."""


def call(
    runner: Runner,
    argv: Sequence[str],
    *,
    timeout: float = TIMEOUT_S,
    ok: Sequence[int] = (0,),
    stdin: str | None = None,
) -> Result:
    """Run a command of Slurm; errors come out in Slurm's terms.

    Raises:
        ToolMissing: there is no Slurm here.
        SlurmUnavailable, UnknownJob, RequestRefused: see the module.
        ToolError, ToolTimeout: anything else.
    """
    try:
        return runner.run(argv, timeout=timeout, ok=ok, stdin=stdin)
    except ToolMissing as error:
        raise ToolMissing(error.tool, remedy=NO_SLURM) from error
    except ToolTimeout as error:
        if "cannot stat file" in error.stderr:
            raise SlurmUnavailable(argv, 1, error.stderr, remedy=_NO_CONFIGURATION) from error
        raise
    except ToolError as error:
        raise translated(error) from error


def translated(error: ToolError) -> PioletError:
    """Return the error that says in Slurm's terms what `error` says; `error` itself if that is not known."""
    said = error.stderr_tail or error.stdout.strip()
    for pattern, remedy in _UNAVAILABLE:
        if re.search(pattern, said, re.IGNORECASE):
            return SlurmUnavailable(error.argv, error.rc, said, remedy=remedy)
    where = f"{error.argv[0]}, which exits with status {error.rc}"
    if re.search(_UNKNOWN_JOB, said):
        return UnknownJob(_short(said), where=where, remedy="`squeue --me` and `sacct -X` list your jobs")
    for pattern, remedy in _REFUSED:
        if re.search(pattern, said, re.IGNORECASE):
            return RequestRefused(f"Slurm refuses: {_short(said)}", where=where, remedy=remedy)
    return error


def _short(said: str) -> str:
    """Return the message without the program's own prefixes, one line each."""
    lines = (re.sub(r"^\w+: ((error|fatal): )?", "", line).strip() for line in said.splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if line))
