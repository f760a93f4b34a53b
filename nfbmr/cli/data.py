"""``nfbmr data``: what is in a folder of images, whether its split leaks, and a set to try things on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.text import count

if TYPE_CHECKING:
    from nfbmr.data.samples import Dataset

_Function = TypeVar("_Function", bound=Callable[..., Any])

_LAYOUTS = """\b
    mvtec    [CATEGORY/] train/good, test/good, test/DEFECT, ground_truth/DEFECT/NAME_mask.png; also mpdd,
             loco (validation/, several masks an image), ad2 (test_public/), btad (ok/ko)
    visa, ksdd, ksdd2, realiad, dagm, mtd   as they are published
    folder   [CATEGORY/] good/ (or OK, normal, ...) and a folder for each kind of defect, or normals straight
             in the folder; masks, if any, beside their images or in folders of their own
    manifest, anomalib   a table with a row an image (nfbmr data manifest writes one); a YAML file

Whatever else: data.layout={good: PATTERN, defect: PATTERN, mask: PATTERN}, see docs/your-folder.md."""


@click.group(help=f"Inspect, audit or synthesize a data set.\n\nLayouts that are read:\n\n{_LAYOUTS}")
def data() -> None:
    """Inspect, audit or synthesize a data set."""


def _layout(ctx: click.Context, parameter: click.Parameter, value: str) -> Any:
    """A layout as ``data.layout`` takes it."""
    from nfbmr.cli.options import resolve_options

    return resolve_options(assignments=(f"data.layout={value}",)).config.data.layout


def reading_options(function: _Function) -> _Function:
    """Options that say how a folder is read."""
    for option in (
        click.option(
            "--group-by",
            metavar="REGEX",
            help="Searched for in each path below PATH; its first group names the part photographed.",
        ),
        click.option(
            "--category", metavar="NAME", help="Which one, where there are several. Default: all of them."
        ),
        click.option(
            "--layout",
            metavar="NAME|PATTERNS",
            default="auto",
            callback=_layout,
            help="A layout's name, or patterns of paths: {good: ..., defect: ..., mask: ...}.",
        ),
    ):
        function = option(function)
    return function


@data.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@reading_options
@click.option(
    "--pictures",
    metavar="OUT.png",
    type=click.Path(path_type=Path),
    help="Draw some pictures of each kind with their masks' outlines, as they were understood.",
)
@json_option
def inspect_command(
    path: Path, layout: Any, category: str | None, group_by: str | None, pictures: Path | None, as_json: bool
) -> None:
    """Count what is in the folder PATH, and list everything that is wrong with it."""
    from nfbmr.data.inspect import inspect_dataset
    from nfbmr.data.sheet import draw_sheet

    datasets = _datasets(path, layout, category, group_by)
    inspections = [inspect_dataset(dataset) for dataset in datasets]
    drawn = None if pictures is None else str(draw_sheet(datasets, pictures))
    summary = {
        "datasets": [i.as_json() for i in inspections],
        "problems": sum(len(i.problems) for i in inspections),
        "pictures": drawn,
    }
    text = "\n\n".join(i.render() for i in inspections)
    emit(summary, as_json=as_json, text=text + (f"\n\n  pictures: {drawn}" if drawn else ""))


@data.command("manifest")
@click.argument("path", type=click.Path(path_type=Path))
@reading_options
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Ends in .csv, .tsv, .jsonl or .parquet. Default: the folder's name and .csv, here.",
)
@json_option
def manifest_command(
    path: Path, layout: Any, category: str | None, group_by: str | None, out: Path | None, as_json: bool
) -> None:
    """Write down what the images of the folder PATH were understood to be, a row an image.

    Correct the table where it is wrong, and train on it: nfbmr train --data FILE. Columns are path, kind
    (good, a kind of defect, or ignore), mask, split, group, category, name and note.
    """
    from nfbmr.data.manifest import write_manifest

    datasets = _datasets(path, layout, category, group_by)
    file = write_manifest(datasets, out or Path(f"{path.resolve().stem or 'manifest'}.csv"))
    images, ignored = sum(len(d.samples) for d in datasets), sum(len(d.unused) for d in datasets)
    text = f"{file}: {count(images, 'image')}, {ignored} ignored\n\n  train on it: nfbmr train --data {file}"
    emit({"manifest": file, "images": images, "ignored": ignored}, as_json=as_json, text=text)


@data.command("audit")
@click.argument("path", type=click.Path(path_type=Path))
@reading_options
@click.option(
    "--split",
    metavar="NAME",
    default="auto",
    help="auto, official (sets with sides), legacy or group (mtd), random or, with --group-by, group.",
)
@click.option("--seed", metavar="N", type=click.IntRange(0), default=0, help="Seed of the split.")
@click.option(
    "--pictures",
    metavar="OUT.png",
    type=click.Path(path_type=Path),
    help="Draw test images beside their nearest image in training, most similar first.",
)
@click.option(
    "--pairs", metavar="N", type=click.IntRange(1), default=24, show_default=True, help="Pairs to draw."
)
@click.option("--twins", "twins_alone", is_flag=True, help="Draw twins alone.")
@click.option("--unsure", "unsure_alone", is_flag=True, help="Draw the pairs alone that it is not sure of.")
@json_option
def audit_command(
    path: Path,
    layout: Any,
    category: str | None,
    group_by: str | None,
    split: str,
    seed: int,
    pictures: Path | None,
    pairs: int,
    twins_alone: bool,
    unsure_alone: bool,
    as_json: bool,
) -> None:
    """Look for test images of PATH whose part is also trained on."""
    from nfbmr.config import DataConfig
    from nfbmr.data.audit import audit_split
    from nfbmr.data.near_duplicates import draw_matches
    from nfbmr.data.splits import make_split
    from nfbmr.errors import ConfigError

    names = ("auto", "official", "legacy", "group", "random")
    if split not in names:
        raise ConfigError(f"no split {split!r}", where="--split", fix=f"use one of {', '.join(names)}")
    config = DataConfig(split=split, seed=seed)
    audits = [(d, audit_split(make_split(d, config))) for d in _datasets(path, layout, category, group_by)]
    drawn: str | None = None
    if pictures is not None:
        kinds = {name for name, wanted in (("twin", twins_alone), ("unsure", unsure_alone)) if wanted}
        nearest = (m for _, a in audits for m in a.nearest if not kinds or m.verdict in kinds)
        matches = sorted(nearest, key=lambda m: -m.similarity)
        drawn = str(draw_matches(matches, pictures, count=pairs))
    summary = {
        "datasets": [{"name": d.name, "layout": d.layout, **a.as_json()} for d, a in audits],
        "leaks": any(a.leaks for _, a in audits),
        "pictures": drawn,
    }
    text = "\n\n".join(f"{d.name}, {a.render()}" for d, a in audits)
    emit(summary, as_json=as_json, text=text + (f"\n\n  pictures: {drawn}" if drawn else ""))


@data.command("synthesize")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--class", "classes", metavar="NAME", multiple=True, help="A class, see below. Repeatable.")
@click.option("--train", metavar="N", type=click.IntRange(1), help="Good images to train on, a class.")
@click.option("--test-good", metavar="N", type=click.IntRange(1), help="Good images to test on, a class.")
@click.option("--test-defective", metavar="N", type=click.IntRange(1), help="Defective images, a class.")
@click.option(
    "--size",
    metavar="PIXELS",
    type=click.IntRange(16, 4096),
    help="Width and height; each class has its own.",
)
@click.option("--seed", metavar="N", type=click.IntRange(0), help="The same seed gives the same bytes.")
@json_option
def synthesize_command(out: Path, classes: Sequence[str], as_json: bool, **numbers: int | None) -> None:
    """Make demonstration sets, pictures with defects and masks in MVTec layout, in the folder OUT.

    Textures, all made where no class is named: woven, brushed, granite, leather, wood, knurled (256 px).
    Objects at any angle with small defects: bolt, gear, bracket (1024 px, plain ground), capsule (512 px,
    plain), washer (512 px) and link (768 px) on textured ground.
    """
    from nfbmr.data.layouts import categories, load_dataset
    from nfbmr.data.synthesize import synthesize

    given: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    if classes:
        given["classes"] = tuple(classes)
    made = synthesize(out, **given)
    counts = {name: load_dataset(made, category=name).counts() for name in categories(made)}
    lines = [f"{made}: {count(len(counts), 'class', 'classes')}", ""]
    lines += [
        f"  {name:<12}" + ", ".join(f"{n} {k}" for k, n in kinds.items()) for name, kinds in counts.items()
    ]
    lines += ["", f"  train on one: nfbmr train --data {made} --category {next(iter(counts), '')}"]
    emit(
        {"path": str(made), "layout": "mvtec", "counts": counts},
        as_json=as_json,
        text="\n".join(lines),
    )


def _datasets(path: Path, layout: Any, category: str | None, group_by: str | None) -> list[Dataset]:
    """The data set in a folder; all of them, where it holds several and none is named."""
    from nfbmr.data.layouts import categories, load_dataset

    several = categories(path, layout) if category in (None, "all") else ()
    names = several or [None if category == "all" else category]
    return [load_dataset(path, layout=layout, category=name, group_by=group_by) for name in names]
