"""``nfbmr data``: what is in a folder of images, whether its split leaks, and a set to try things on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.wording import count

if TYPE_CHECKING:
    from nfbmr.data.samples import Dataset

Function = TypeVar("Function", bound=Callable[..., Any])

LAYOUTS = """\b
    mvtec    [CATEGORY/] train/good, test/good, test/DEFECT, ground_truth/DEFECT/NAME_mask.png
    dagm     [Class1/]   Train, Test, in each Label/Labels.txt and Label/NAME_label.PNG
    mtd      MT_Free/Imgs, MT_DEFECT/Imgs: NAME.jpg, with the mask NAME.png beside it
    folder   good/ and a folder for each kind of defect, or normals straight in the folder; masks, if any,
             in ground_truth/DEFECT/NAME_mask.png or masks/NAME.png, or NAME_mask.png beside the image"""


@click.group(help=f"Inspect, audit or synthesize a data set.\n\nLayouts that are read:\n\n{LAYOUTS}")
def data() -> None:
    """Inspect, audit or synthesize a data set."""


def reading_options(function: Function) -> Function:
    """Options that say how a folder is read."""
    for option in (
        click.option(
            "--group-by",
            metavar="REGEX",
            help="Searched for in each path below PATH; its first group names the part photographed.",
        ),
        click.option("--category", metavar="NAME", help="Which one, where the folder holds several."),
        click.option("--layout", metavar="NAME", default="auto", help="auto, mvtec, dagm, mtd or folder."),
    ):
        function = option(function)
    return function


@data.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@reading_options
@json_option
def inspect_command(
    path: Path, layout: str, category: str | None, group_by: str | None, as_json: bool
) -> None:
    """Count what is in the folder PATH, and list everything that is wrong with it."""
    from nfbmr.data.inspect import inspect_dataset

    found = [inspect_dataset(d) for d in _datasets(path, layout, category, group_by)]
    summary = {"datasets": [i.as_json() for i in found], "problems": sum(len(i.problems) for i in found)}
    emit(summary, as_json=as_json, text="\n\n".join(i.render() for i in found))


@data.command("audit")
@click.argument("path", type=click.Path(path_type=Path))
@reading_options
@click.option(
    "--split",
    metavar="NAME",
    default="auto",
    help="auto, official (mvtec, dagm), legacy or group (mtd), random or, with --group-by, group (folder).",
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
@json_option
def audit_command(
    path: Path,
    layout: str,
    category: str | None,
    group_by: str | None,
    split: str,
    seed: int,
    pictures: Path | None,
    pairs: int,
    twins_alone: bool,
    as_json: bool,
) -> None:
    """Look for test images of PATH whose part is also trained on."""
    from nfbmr.config import DataConfig
    from nfbmr.data.audit import audit_split
    from nfbmr.data.splits import make_split
    from nfbmr.data.twins import draw_matches
    from nfbmr.errors import ConfigError

    names = ("auto", "official", "legacy", "group", "random")
    if split not in names:
        raise ConfigError(f"no split {split!r}", where="--split", fix=f"use one of {', '.join(names)}")
    config = DataConfig(split=split, seed=seed)
    audits = [(d, audit_split(make_split(d, config))) for d in _datasets(path, layout, category, group_by)]
    drawn: str | None = None
    if pictures is not None:
        found = (m for _, a in audits for m in (a.twins if twins_alone else a.nearest))
        matches = sorted(found, key=lambda m: -m.similarity)
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
@click.option("--class", "classes", metavar="NAME", multiple=True, help="A class of texture. Repeatable.")
@click.option("--train", metavar="N", type=click.IntRange(1), help="Good images to train on, a class.")
@click.option("--test-good", metavar="N", type=click.IntRange(1), help="Good images to test on, a class.")
@click.option("--test-defective", metavar="N", type=click.IntRange(1), help="Defective images, a class.")
@click.option("--size", metavar="PIXELS", type=click.IntRange(16, 4096), help="Width and height.")
@click.option("--seed", metavar="N", type=click.IntRange(0), help="The same seed gives the same bytes.")
@json_option
def synthesize_command(out: Path, classes: Sequence[str], as_json: bool, **numbers: int | None) -> None:
    """Make the demonstration set, textures with defects and masks in MVTec layout, in the folder OUT."""
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


def _datasets(path: Path, layout: str, category: str | None, group_by: str | None) -> list[Dataset]:
    """The data set in a folder; all of them, where it holds several and none is named."""
    from nfbmr.data.layouts import categories, load_dataset

    several = categories(path) if layout in ("auto", "mvtec", "dagm") and category is None else ()
    return [
        load_dataset(path, layout=layout, category=name, group_by=group_by) for name in several or [category]
    ]
