"""``nfbmr features``: stored features, before and after training."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import config_options, emit, json_option
from nfbmr.text import count, plural, size_of

if TYPE_CHECKING:
    from nfbmr.config import Config
    from nfbmr.data.pictures import Picture
    from nfbmr.data.samples import Split
    from nfbmr.errors import ImageError
    from nfbmr.features.maintenance import SpaceInfo, StageInfo
    from nfbmr.resolve import Resolved

_DEFAULT_STORE = Path(".nfbmr/store")


def store_option(function: Any) -> Any:
    """Give a command ``--store``; its function receives ``store``, a folder or an address."""
    return click.option(
        "--store",
        default=_DEFAULT_STORE,
        show_default=True,
        metavar="FOLDER|s3://BUCKET/PREFIX",
        callback=_existing,
        help="Where features, latents and fitted stages are kept.",
    )(function)


def _existing(ctx: click.Context, parameter: click.Parameter, value: Path | str) -> Path:
    """A store that somebody names has to be there; where the usual one would be, there may be none yet."""
    from nfbmr.addresses import ObjectPath, store_address
    from nfbmr.errors import StoreError

    try:
        store = store_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error
    named = ctx.get_parameter_source("store") is not click.core.ParameterSource.DEFAULT
    if named and not isinstance(store, ObjectPath) and not store.is_dir():
        raise StoreError(
            "a file, not a store" if store.exists() else "no such store",
            where=store,
            fix="check --store; `nfbmr train` and `nfbmr features build` make one",
        )
    return store


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
    from nfbmr.devices import device_of, limit_threads
    from nfbmr.features.extraction import extract, unusable
    from nfbmr.features.store import open_store
    from nfbmr.prepare import read_data, with_sizes
    from nfbmr.stopping import StopRequest

    limit_threads()

    store = open_store(resolved.config.store)
    _, split = read_data(resolved.config)
    config = with_sizes(resolved.config, split)
    pictures, failed = _pictures(config, split)
    with StopRequest() as stop:
        extraction = extract(
            pictures,
            config.features,
            store,
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
            {
                "key": spec.key,
                "tap": spec.fields["tap"],
                "shape": table.shape,
                "compute": extraction.compute,
                "engine": extraction.engine,
            }
            for spec, table in zip(extraction.specs, extraction.tables, strict=True)
        ],
    }
    text = f"{count(extraction.computed, 'image')} computed ({rate:.1f} a second), {extraction.reused} reused"
    emit(summary, as_json=as_json, text=f"{text}\nstored in {config.store}")


def _pictures(config: Config, split: Split) -> tuple[list[Picture], dict[Path, ImageError]]:
    """Every picture that a run looks at, and the files that are none."""
    from nfbmr.data.pictures import ViewOp, picture_of
    from nfbmr.errors import ImageError
    from nfbmr.prepare import validation_of

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
    from nfbmr.features.backends import StoreBackend
    from nfbmr.features.maintenance import list_spaces, list_stages

    backend = StoreBackend(store)
    spaces = list_spaces(backend)
    stages = list_stages(backend, spaces)
    infos: list[SpaceInfo | StageInfo] = [*spaces, *stages]
    total = sum(info.size for info in infos)
    held = f"{count(len(spaces), 'space')} and {count(len(stages), 'stage')}, {size_of(total)} in {store}"
    summary = {
        "store": store,
        "bytes": total,
        "spaces": [info.as_json() for info in spaces],
        "stages": [info.as_json() for info in stages],
    }
    emit(summary, as_json=as_json, text="\n".join([*map(_line, infos), held]))


@features.command()
@click.option("--repair", is_flag=True, help="Remove what is damaged: only that is computed again.")
@click.option(
    "--space", "spaces", multiple=True, metavar="KEY",
    help="This space alone (or how its key begins), and no stages. Repeatable.",
)  # fmt: skip
@store_option
@json_option
def verify(store: Path, repair: bool, spaces: tuple[str, ...], as_json: bool) -> None:
    """Read every stored byte and compare it with what was written; read every fitted stage.

    Ends with exit code 2 if something is damaged and was not repaired.
    """
    from nfbmr.errors import CorruptShardError
    from nfbmr.features import maintenance
    from nfbmr.features.shards import MEND

    verified = maintenance.verify(store, spaces=spaces, repair=repair)
    damaged = [f"{store}/{name}" for name in verified.damaged]
    if damaged and not repair:
        names = "".join(f"\n  {name}" for name in damaged)
        files = count(verified.shards + verified.stages, "file")
        raise CorruptShardError(
            f"{len(damaged)} of {files} {plural(len(damaged), 'is', 'are')} damaged:{names}", fix=MEND
        )
    summary = {
        "store": store,
        "shards": verified.shards,
        "rows": verified.rows,
        "stages": verified.stages,
        "removed": damaged,
    }
    whole = verified.shards + verified.stages - len(damaged)
    lines = [f"removed {name}" for name in damaged]
    lines.append(f"sound: {count(whole, 'file')}, with {count(verified.rows, 'row')}")
    emit(summary, as_json=as_json, text="\n".join(lines))


@features.command()
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Not used for this long.")
@click.option(
    "--keep", type=click.IntRange(min=0), metavar="N", help="All but the N most recently used, of each sort."
)
@click.option(
    "--space", "spaces", multiple=True, metavar="KEY", help="This space (or how its key begins). Repeatable."
)
@click.option(
    "--stage", "stages", multiple=True, metavar="KEY", help="This stage (or how its key begins). Repeatable."
)
@click.option("--flow", "flows", multiple=True, hidden=True)  # as --stage was called
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@store_option
@json_option
def prune(
    store: Path,
    older_than: float | None,
    keep: int | None,
    spaces: tuple[str, ...],
    stages: tuple[str, ...],
    flows: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove stored spaces and fitted stages.

    A space that a running process has open is never removed, nor is a stage that is being trained.
    """
    from nfbmr.features import maintenance

    stages += flows
    if older_than is None and keep is None and not spaces and not stages:
        raise click.UsageError("say what to remove: --older-than, --keep, --space or --stage")
    # Stages first: when they were last used is told by their latents.
    limits: dict[str, Any] = {"keep": keep, "older_than_days": older_than, "dry_run": dry_run}
    of_stages = maintenance.prune_stages(store, stages=stages, **limits)
    of_spaces = maintenance.prune(store, spaces=spaces, **limits)
    removed: list[SpaceInfo | StageInfo] = [*of_spaces.removed, *of_stages.removed]
    held: list[SpaceInfo | StageInfo] = [*of_spaces.held, *of_stages.held]
    freed = sum(info.size for info in removed)
    summary = {
        "store": store,
        "dry_run": dry_run,
        "bytes": freed,
        "removed": [info.as_json() for info in of_spaces.removed],
        "held": [info.as_json() for info in of_spaces.held],
        "stages": {
            "removed": [info.as_json() for info in of_stages.removed],
            "held": [info.as_json() for info in of_stages.held],
        },
    }
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {_line(info)}" for info in removed]
    lines += [f"in use, left: {_line(info)}" for info in held]
    sorts = f"{count(len(of_spaces.removed), 'space')} and {count(len(of_stages.removed), 'stage')}"
    lines.append(f"{verb} {sorts}, {size_of(freed)}")
    emit(summary, as_json=as_json, text="\n".join(lines))


def _line(info: SpaceInfo | StageInfo) -> str:
    used = datetime.datetime.fromtimestamp(info.used).strftime("%Y-%m-%d %H:%M")
    return f"{info.key[:12]}  {size_of(info.size):>9}  {used}  {_about(info)}"


def _about(info: SpaceInfo | StageInfo) -> str:
    """What was stored, in the words of the configuration."""
    from nfbmr.features.maintenance import SpaceInfo

    made = ("backbone", "tap", "size", "flow", "compute", "engine", "dtype")
    if isinstance(info, SpaceInfo):
        words = [info.kind, count(info.rows, "row"), *_named(info.fields, made)]
    elif info.state == "trained":
        stage = info.identity.get("stage", "")
        training = info.identity.get("train", {})
        words = [
            "stage",
            stage,
            *_named(info.identity.get("flow", {}), ("blocks", "hidden")),
            *_named({**training, "seed": info.identity.get("seed")}, ("epochs", "lr", "seed")),
            *(["of", *_named(info.seen, ("backbone", "tap", "size"))] if info.seen else ()),
        ]
    else:
        words = ["stage,", info.state]
    return " ".join(words)


def _named(fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{name}={fields[name]}" for name in names if name in fields]
