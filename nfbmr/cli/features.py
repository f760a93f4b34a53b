"""``nfbmr features``: stored features, before and after training."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import config_options, emit, json_option

if TYPE_CHECKING:
    from nfbmr.config import Config
    from nfbmr.data.pictures import Picture
    from nfbmr.errors import ImageError
    from nfbmr.features.upkeep import SpaceInfo
    from nfbmr.resolve import Resolved

DEFAULT_STORE = Path(".nfbmr/store")


def store_option(function: Any) -> Any:
    """Give a command ``--store``; its function receives ``store``."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_STORE,
        show_default=True,
        metavar="FOLDER",
        help="Where features, latents and flows are kept.",
    )(function)


@click.group()
def features() -> None:
    """Build, list, verify or prune stored features."""


@features.command()
@config_options
@json_option
def build(resolved: Resolved, as_json: bool) -> None:
    """Compute and store the features of a data set, as `train` with the same options needs them.

    Training afterwards finds them and computes none. What can be read is stored even if some images cannot.
    """
    from nfbmr.features.extraction import extract, unusable
    from nfbmr.features.store import FeatureStore
    from nfbmr.training.compute import device_of, limit_threads
    from nfbmr.training.stopping import StopRequest

    limit_threads()

    config = resolved.config
    pictures, failed = _pictures(config)
    with StopRequest() as stop:
        extraction = extract(
            pictures,
            config.features,
            FeatureStore(config.store),
            device=str(device_of(config.train.device)),
            on_error="skip",
            stop=lambda: stop.requested,
        )
    failed |= {pictures[i].path: error for i, error in extraction.failed.items()}
    if failed:
        raise unusable(failed, len(pictures))
    rate = extraction.computed / extraction.seconds
    summary = {
        "store": config.store,
        "computed": extraction.computed,
        "reused": extraction.reused,
        "seconds": round(extraction.seconds, 3),
        "images_per_second": round(rate, 3),
        "spaces": [
            {"key": spec.key, "tap": spec.fields["tap"], "shape": table.shape, "compute": extraction.compute}
            for spec, table in zip(extraction.specs, extraction.tables, strict=True)
        ],
    }
    text = f"{extraction.computed} images computed ({rate:.1f} a second), {extraction.reused} were there"
    emit(summary, as_json=as_json, text=f"{text}\nstored in {config.store}")


def _pictures(config: Config) -> tuple[list[Picture], dict[Path, ImageError]]:
    """Every picture that a run looks at, and the files that are none."""
    from nfbmr.data.pictures import ViewOp, picture_of
    from nfbmr.errors import ImageError
    from nfbmr.preparation import read_data, validation_of

    _, split = read_data(config)
    pictures: list[Picture] = []
    failed: dict[Path, ImageError] = {}
    training = frozenset(split.train)
    for sample in (*split.train, *split.test):
        try:
            picture = picture_of(sample)
        except ImageError as error:
            failed[sample.path] = error
            continue
        views = config.features.views if sample in training else ()
        pictures += [picture, *(picture.then(ViewOp(view)) for view in views)]
    validation = validation_of(config, split)
    return [*pictures, *validation.good, *validation.defective], failed


@features.command("list")
@store_option
@json_option
def list_(store: Path, as_json: bool) -> None:
    """List what the store holds, the most recently used first."""
    from nfbmr.features.upkeep import list_spaces

    infos = list_spaces(store)
    total = sum(info.size for info in infos)
    lines = [_line(info) for info in infos]
    lines.append(f"{len(infos)} spaces, {_bytes(total)} in {store}")
    emit(
        {"store": store, "bytes": total, "spaces": [i.as_json() for i in infos]},
        as_json=as_json,
        text="\n".join(lines),
    )


@features.command()
@click.option("--repair", is_flag=True, help="Remove damaged shards: only their images are computed again.")
@store_option
@json_option
def verify(store: Path, repair: bool, as_json: bool) -> None:
    """Read every stored byte and compare it with what was written.

    Ends with exit code 2 if something is damaged and was not repaired.
    """
    from nfbmr.errors import CorruptShardError
    from nfbmr.features.shards import MEND
    from nfbmr.features.store import verify_space
    from nfbmr.features.upkeep import list_spaces

    infos = list_spaces(store)
    found = [verify_space(info.folder, repair=repair) for info in infos]
    corrupt = [path for verification in found for path in verification.corrupt]
    shards, rows = sum(v.shards for v in found), sum(v.rows for v in found)
    if corrupt and not repair:
        names = "".join(f"\n  {path}" for path in corrupt)
        raise CorruptShardError(f"{len(corrupt)} of {shards} shards are damaged:{names}", fix=MEND)
    summary = {"store": store, "shards": shards, "rows": rows, "removed": corrupt}
    lines = [f"removed {path}" for path in corrupt]
    lines.append(f"{rows} rows in {shards - len(corrupt)} shards are as they were written")
    emit(summary, as_json=as_json, text="\n".join(lines))


@features.command()
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Not used for this long.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="All but the N most recently used.")
@click.option(
    "--space", "spaces", multiple=True, metavar="KEY", help="This one (or how its key begins). Repeatable."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@store_option
@json_option
def prune(
    store: Path,
    older_than: float | None,
    keep: int | None,
    spaces: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove stored spaces. One that a running process has open is never removed."""
    from nfbmr.features.upkeep import prune as prune_store

    if older_than is None and keep is None and not spaces:
        raise click.UsageError("say what to remove: --older-than, --keep or --space")
    pruned = prune_store(store, keep=keep, older_than_days=older_than, spaces=spaces, dry_run=dry_run)
    freed = sum(info.size for info in pruned.removed)
    summary = {
        "store": store,
        "dry_run": dry_run,
        "bytes": freed,
        "removed": [info.as_json() for info in pruned.removed],
        "held": [info.as_json() for info in pruned.held],
    }
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {_line(info)}" for info in pruned.removed]
    lines += [f"in use, left: {_line(info)}" for info in pruned.held]
    lines.append(f"{verb} {len(pruned.removed)} spaces, {_bytes(freed)}")
    emit(summary, as_json=as_json, text="\n".join(lines))


def _line(info: SpaceInfo) -> str:
    used = datetime.datetime.fromtimestamp(info.used).strftime("%Y-%m-%d %H:%M")
    shown = ("backbone", "tap", "size", "flow", "compute", "dtype")
    fields = " ".join(f"{name}={info.fields[name]}" for name in shown if name in info.fields)
    return f"{info.key[:12]}  {info.rows:>7} rows {_bytes(info.size):>9}  {used}  {info.kind} {fields}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
