"""`piolet guard`: secrets in text, model files that run code, what container images hold and jobs open to others."""

from __future__ import annotations

import datetime as dt
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from piolet.cli.common import Format, format_option, print_json, print_table, progress
from piolet.core.errors import UsageError

if TYPE_CHECKING:
    from piolet.guard.finding import Scan
    from piolet.guard.policy import Policy

Command = Callable[..., int]

_file = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Judging:
    """By which policy a scan is judged, how the verdict is printed, and where it is written for code hosts."""

    policy_file: Path | None
    output: Format
    sarif: Path | None


def judging(function: Command) -> Command:
    """Add the options that every scan has; the function gets them as `how`."""

    @functools.wraps(function)
    def judged(policy_file: Path | None, output: Format, sarif: Path | None, **others: Any) -> int:  # noqa: ANN401 - click's
        return function(how=Judging(policy_file, output, sarif), **others)

    policy = click.option("--policy", "policy_file", type=_file, help="Policy file. [default: guard.policy]")
    sarif = click.option("--sarif", type=_file, help="Also write it to this file, for code hosts and editors.")
    return policy(sarif(format_option(judged)))


def scanning(function: Command) -> Command:
    """Add PATH... and the options that every scan has."""
    paths = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
    return paths(judging(function))


@click.group()
def command() -> None:
    """Secrets and leaking habits in text, model files that run code, what images hold and jobs open to others.

    Exit status: 0 nothing fails, 1 something does, 3 nothing fails but something could not be checked. Nothing that is
    scanned is ever executed.
    """


@command.command()
@scanning
def script(paths: tuple[Path, ...], how: Judging) -> int:
    """Scan job scripts for secrets and for habits that leak them."""
    from piolet.guard.texts import scan_scripts

    return _judged(how, lambda _: scan_scripts(paths))


@command.command()
@scanning
def logs(paths: tuple[Path, ...], how: Judging) -> int:
    """Scan logs for secrets that were printed."""
    from piolet.guard.texts import scan_logs

    return _judged(how, lambda _: scan_logs(paths))


@command.command()
@scanning
def env(paths: tuple[Path, ...], how: Judging) -> int:
    """Scan EDF, service and .env files for secrets and for variables that load code.

    PATH may also be the name of an environment: then its EDF is scanned, with those that it builds on.
    """
    from piolet.guard.texts import scan_environments

    files = [file for path in paths for file in _environment(path)]
    return _judged(how, lambda _: scan_environments(files))


def _environment(path: Path) -> list[Path]:
    """Return the file itself, or all files of the environment of that name."""
    from piolet.core import config
    from piolet.env import lookup

    if path.exists() or lookup.is_path(str(path)):
        return [path]
    context = lookup.Context(os.environ, Path.cwd(), config.load().settings)
    return [edf.path for edf in lookup.chain(lookup.find(str(path), context), context)]


@command.command()
@scanning
@click.option(
    "--digests", type=click.Path(path_type=Path, dir_okay=False), help="A file of sha256sum that names every file."
)
@click.option("--signature", type=_file, help="Signature of the one PATH, by model-signing.")
@click.option("--public-key", type=_file, help="Whose signature it should be: a public key.")
@click.option("--identity", default="", help="Whose it should be: a name that --issuer vouches for, in Sigstore.")
@click.option("--issuer", default="", metavar="URL", help="The OpenID provider of that name.")
@click.option("--trust", type=_file, help="A Sigstore of your own. [default: the public one]")
def model(
    *,
    paths: tuple[Path, ...],
    how: Judging,
    digests: Path | None,
    signature: Path | None,
    **signer: Any,  # noqa: ANN401 - the options are the fields of a Signer
) -> int:
    """Scan model files: pickles and torch files, safetensors, GGUF, ONNX, Keras, and the JSON beside them."""
    from piolet.guard.finding import joined
    from piolet.guard.models import scan_models
    from piolet.guard.signatures import Signer, verified

    if any(signer.values()) and not signature:
        raise UsageError("there is no signature to verify", where="--signature", remedy="give its file")
    if signature and len(paths) > 1:
        raise UsageError("a signature is of one model", where="--signature", remedy="scan one model at a time")

    def scanned(policy: Policy) -> Scan:
        signed = [verified(paths[0], signature, Signer(**signer))] if signature else []
        return joined("model", [scan_models(paths, policy.model, digests), *signed])

    return _judged(how, scanned)


@command.command()
@scanning
@click.option("--osv", type=click.Path(path_type=Path), help="Directory of OSV advisories. [default: guard.osv]")
@click.option(
    "--scanners/--no-scanners", "asking", default=True, show_default=True, help="Ask trivy and grype, where they are."
)
@click.option("--sbom", type=click.Path(path_type=Path, dir_okay=False), help="Write the packages as CycloneDX JSON.")
def image(
    *,
    paths: tuple[Path, ...],
    how: Judging,
    osv: Path | None,
    sbom: Path | None,
    asking: bool,
) -> int:
    """Scan images: OCI archives and directories (every layer), squashfs files, root directories."""
    from piolet.core import config, files
    from piolet.guard.finding import joined
    from piolet.guard.image import packages, scan
    from piolet.tools import scanners

    if sbom and len(paths) > 1:
        raise UsageError("one file of packages is of one image", where="--sbom", remedy="scan one image at a time")
    asked = scanners.present() if asking else ()
    advisories = osv or config.load().settings.guard.osv

    def scanned(policy: Policy) -> Scan:
        every = [scan.scan_image(path, policy.image, advisories, asked=asked) for path in paths]
        if sbom:
            files.write_json(sbom, packages.sbom(every[0][1], paths[0].name))
        return joined("image", [each for each, _ in every])

    return _judged(how, scanned)


@command.command()
@judging
@click.option("--declare", "declared", multiple=True, metavar="PORT", help="A port, or 20000-20100, meant to be open.")
@click.option("--pid", type=click.IntRange(1), help="A process and all below it; default: the job's around this.")
def job(how: Judging, declared: tuple[str, ...], pid: int | None) -> int:
    """Scan the processes of the job on this node: listeners, services without a password, old torch, GPU memory.

    On all nodes: srun --overlap --ntasks-per-node=1 piolet guard job
    """
    from piolet.guard.job import here, scan

    ports = scan.ports(declared)
    return _judged(how, lambda _: here.scan_here(ports, pid))


@command.command("rules")
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help="Policy file. [default: guard.policy]")
@format_option
def rules_command(policy_file: Path | None, output: Format) -> None:
    """Print every rule and its level under the policy."""
    from piolet.guard.rules import RULES

    policy = _policy(policy_file)
    found = [(rule.id, str(policy.level(rule.id)), rule.title, rule.remedy) for rule in RULES.values()]
    columns = ("rule", "level", "what it is", "next")
    if output is Format.JSON:
        print_json([dict(zip(columns, row, strict=True)) for row in found])
    else:
        print_table(columns, found)


def _judged(how: Judging, scan: Callable[[Policy], Scan]) -> int:
    """Scan, judge, print, and return the exit status."""
    from piolet.core import files
    from piolet.guard import output, policy

    chosen = _policy(how.policy_file)
    with progress("scanning"):
        found = scan(chosen)
    verdict = policy.judge(found, chosen, dt.datetime.now(tz=dt.UTC).date())
    if how.sarif:
        files.write_json(how.sarif, output.to_sarif(verdict))
    if how.output is Format.TABLE:
        if rows := output.rows(verdict):
            print_table(("level", "rule", "where", "what was seen", "next"), rows)
        click.echo(output.summary(verdict))
    else:
        print_json(output.to_json(verdict))
    return verdict.exit_status


def _policy(path: Path | None) -> Policy:
    from piolet.core import config
    from piolet.guard import policy

    return policy.read(path or config.load().settings.guard.policy)
