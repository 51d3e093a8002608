"""`piolet data`: storage for machine learning."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli import data_ckpt, data_io, data_stage, data_tiers
from piolet.cli.common import Format, counting, format_option, print_json, print_table, progress

if TYPE_CHECKING:
    from piolet.data.advice import Facts
    from piolet.data.probing import Probe
    from piolet.data.tally import Tally

FINDINGS = 1
_SHOWN = 20


@click.group()
def command() -> None:
    """Storage for machine learning: how data lies, and what to do about checkpoints."""


@command.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--resume", is_flag=True, help="Go on with a walk that was interrupted.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that walk; default: one a CPU, 2 to 16.")
@format_option
def check(paths: tuple[Path, ...], workers: int | None, output: Format, *, resume: bool) -> int:
    """Say what is wrong with how the data below PATH lies, and which commands mend it.

    Changes nothing. Stays on the file system of PATH. Exit status: 0 nothing to mend, 1 findings.
    """
    import platformdirs

    from piolet.core import config
    from piolet.core.nouns import Severity
    from piolet.core.run import SystemRunner
    from piolet.data import advice, checking, site

    settings = config.load().settings
    table = site.read(settings.data.storage) if settings.data.storage else ()
    cache = platformdirs.user_cache_path("piolet")
    facts = []
    for path in paths:
        with counting() as show:
            facts.append(
                checking.check(
                    path,
                    table,
                    SystemRunner(),
                    cache=cache,
                    resume=resume,
                    workers=workers,
                    report=lambda tally, show=show: show(_progress(tally)),  # type: ignore[misc] # the loop's own
                )
            )
    found = [advice.findings(each) for each in facts]
    if output is Format.JSON:
        print_json(
            [
                _as_json(each) | {"findings": [asdict(one) for one in some]}
                for each, some in zip(facts, found, strict=True)
            ]
        )
    else:
        for each in facts:
            _print(each)
    return FINDINGS if any(one.severity is not Severity.INFO for some in found for one in some) else 0


def _progress(tally: Tally) -> str:
    from piolet.core.text import count, size

    return f"{count(tally.files)} files in {count(tally.directories)} directories, {size(tally.size_bytes)}"


def _as_json(facts: Facts) -> dict[str, object]:
    return {
        "root": str(facts.root),
        "mount": asdict(facts.mount),
        "quota": asdict(facts.quota) if facts.quota else None,
        "quota_trouble": facts.quota_trouble,
        "counts": facts.tally.to_json(),
    }


def _print(facts: Facts) -> None:
    from piolet.core.text import count, size
    from piolet.data.advice import findings, histogram

    tally = facts.tally
    click.echo(f"{facts.root} on {facts.mount.kind} ({facts.mount.path}): {_progress(tally)}")
    share = tally.small / tally.files if tally.files else 0.0
    click.echo(
        f"{size(tally.used_bytes)} on disk, {count(tally.inodes)} inodes, {share:.0%} of the files below 1 MiB\n"
    )
    rows = [(name, count(number), f"{number / max(tally.files, 1):.0%}") for name, number in histogram(tally.sizes)]
    print_table(("size", "files", "share"), rows)
    for finding in findings(facts):
        click.echo(f"\n{finding.severity}: {finding.subject}: {finding.reason}")
        click.echo("  " + finding.suggested_action.replace("\n", "\n    "))
    click.echo()


@command.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--shards", is_flag=True, help="WebDataset shards in a directory, instead of one squashfs image.")
@click.option("--shard-size", default="1GB", show_default=True, help="Size of a shard at most.")
@click.option("--seed", type=int, help="Shuffle the samples of the shards; the same seed gives the same order.")
@click.option("--verify", "verifying", is_flag=True, help="Read it all back and compare.")
def pack(source: Path, target: Path, shard_size: str, seed: int | None, *, shards: bool, verifying: bool) -> int:
    """Pack the directory SOURCE into TARGET, with checksums, and say how to use it.

    The same content gives the same bytes. TARGET must not be there yet; SOURCE is left as it is.
    """
    from piolet.core.run import SystemRunner
    from piolet.core.text import count, size
    from piolet.data.packing import pack_squashfs
    from piolet.data.shards import pack_shards

    with counting() as show:

        def report(files: int) -> None:
            show(f"packing {source}: {count(files)} files")

        if shards:
            packed = pack_shards(
                source, target, shard_bytes=_bytes(shard_size, "--shard-size"), seed=seed, report=report
            )
        else:
            packed = pack_squashfs(source, target, SystemRunner(), report)
    click.echo(
        f"{packed.path}: {count(packed.files)} files, {size(packed.source_bytes)} in {size(packed.packed_bytes)}"
    )
    if verifying:
        status = _verified(target)
        if status:
            return status
    click.echo(_usage(source, target, shards=shards))
    return 0


def _bytes(text: str, option: str) -> int:
    from piolet.core.errors import UsageError
    from piolet.core.text import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"the size {error}", where=option) from error


def _usage(source: Path, target: Path, *, shards: bool) -> str:
    """Return what to write where, to read what was packed."""
    if shards:
        last = len(list(target.glob("shard-*.tar"))) - 1
        urls = f"{target.resolve()}/shard-{{000000..{last:06d}}}.tar"
        return (
            f'in Python:\n  import webdataset\n  data = webdataset.WebDataset("{urls}", shardshuffle=100).shuffle(1000)'
        )
    mount = f"{target.resolve()}:{source.resolve()}:sqsh"
    return f'in the EDF:\n  mounts = ["{mount}"]\nin Python: read it at {source.resolve()}, as before'


@command.command()
@click.argument("packed", type=click.Path(path_type=Path))
def verify(packed: Path) -> int:
    """Read back PACKED, an image or a directory of shards, and compare with its checksums.

    Exit status: 0 all is as it was packed, 1 something differs.
    """
    return _verified(packed)


def _verified(packed: Path) -> int:
    from piolet.core.run import SystemRunner
    from piolet.core.text import count
    from piolet.data.packing import verify_squashfs
    from piolet.data.shards import verify_shards

    with progress(f"reading back {packed}"):
        files, wrong = verify_shards(packed) if packed.is_dir() else verify_squashfs(packed, SystemRunner())
    for each in wrong[:_SHOWN]:
        click.echo(each)
    if len(wrong) > _SHOWN:
        click.echo(f"and {count(len(wrong) - _SHOWN)} more")
    click.echo(f"{packed}: {count(files)} files read back, {count(len(wrong))} differences")
    return FINDINGS if wrong else 0


@command.command()
@click.argument("directory", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--size", "amount", default="256MiB", show_default=True, help="Size of the temporary file.")
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="Pairs of measurements.")
@format_option
def probe(directory: Path, amount: str, rounds: int, output: Format) -> int:
    """Measure how the file system of PATH reads in order and at random, with a temporary file.

    Exit status: 0 small random reads are quick, 1 they take as long as on disks.
    """
    from piolet.data import probing

    with counting() as show:
        found = probing.probe(directory, size_bytes=_bytes(amount, "--size"), rounds=rounds, report=show)
    if output is Format.JSON:
        print_json(asdict(found) | {"median_piece_s": found.piece_s, "slow": found.slow})
    else:
        _print_probe(directory, found)
    return FINDINGS if found.slow else 0


def _print_probe(directory: Path, found: Probe) -> None:
    from statistics import median

    from piolet.core.text import size
    from piolet.data.probing import PIECE_BYTES, SLOW_S
    from piolet.tools import mountinfo

    kind = mountinfo.holding(directory.resolve(), mountinfo.mounted()).kind
    how = "O_DIRECT" if found.direct else "posix_fadvise, since O_DIRECT does not work here"
    if kind in {"tmpfs", "ramfs"}:
        click.echo(f"{directory} on {kind}: in the memory of this node")
    else:
        click.echo(f"{directory} on {kind}, past this node's cache by {how}; caches of servers may help")
    rates = [pair.sequential_rate for pair in found.pairs]
    pieces_ms = [each * 1e3 for pair in found.pairs for each in pair.piece_s]
    shares = [pair.share for pair in found.pairs]
    rows = [
        ("in order", len(rates), f"{size(median(rates))}/s", f"{size(min(rates))}/s - {size(max(rates))}/s"),
        (
            f"at random, {size(PIECE_BYTES)}",
            len(pieces_ms),
            f"{median(pieces_ms):.2f} ms",
            f"{min(pieces_ms):.2f} - {max(pieces_ms):.2f} ms",
        ),
        ("random to order", len(shares), f"{median(shares):.0%}", f"{min(shares):.0%} - {max(shares):.0%}"),
    ]
    print_table(("read", "n", "median", "range"), rows)
    limit = f"{SLOW_S * 1e3:g} ms, between disks (13.5 ms) and flash (0.5 ms)"
    if found.slow:
        click.echo(f"slow at random: over {limit}. Pack small files (piolet data pack), or move them to flash")
    else:
        click.echo(f"quick at random: under {limit}")


for each in (
    data_ckpt.ckpt,
    data_io.io_command,
    data_stage.stage,
    data_stage.unstage,
    data_tiers.layout,
    data_tiers.move,
):
    command.add_command(each)
