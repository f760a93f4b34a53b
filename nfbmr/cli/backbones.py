"""``nfbmr backbones``: the networks there are, and where their features can be read."""

from __future__ import annotations

from typing import Any

import click

from nfbmr.cli.options import emit, json_option

_MOST = 40


@click.command()
@click.argument("name", required=False)
@click.option(
    "--size", type=click.IntRange(32, 4096), help="Side of the pictures.  [default: the size it was made for]"
)
@json_option
def backbones(name: str | None, size: int | None, as_json: bool) -> None:
    """Show the taps of the backbone NAME (features.taps), their maps, and its sizes.

    Any model of timm's is a backbone. With a part of a name, or none, those that have it are listed.
    No weights are needed.
    """
    import timm

    from nfbmr.features.models import OLDER, blank_model

    known = [*timm.list_models(), *OLDER]
    exact = name is not None and (timm.is_model(name) or name in OLDER)
    if name is None or not exact:
        matching = [backbone for backbone in known if name is None or name in backbone]
        if not matching:
            blank_model(str(name))  # refuses it, with the nearest names
        left = len(matching) - _MOST
        more = [f"... and {left} more: give a part of a name"] if left > 0 else []
        emit({"backbones": matching}, as_json=as_json, text="\n".join([*matching[:_MOST], *more]))
        return
    about = _about(name, size)
    emit(about, as_json=as_json, text=_page(about))


def _about(name: str, size: int | None) -> dict[str, Any]:
    from nfbmr.features.overview import taps_of

    taps = taps_of(name, size)
    index = {block: n for n, block in enumerate(taps.blocks)}
    return {
        "backbone": name,
        "made_for": list(taps.native),
        "multiple_of": taps.patch,
        "size": list(taps.size),
        "taps": [
            {"tap": tap, "index": index.get(tap), "shape": list(shape)} for tap, shape in taps.shapes.items()
        ],
    }


def _page(about: dict[str, Any]) -> str:
    from nfbmr.text import columns

    height, width = about["made_for"]
    sizes = f"made for {width} x {height} px"
    if about["multiple_of"] > 1:
        sizes += f"; sides are rounded to multiples of its patch, {about['multiple_of']} px"
    high, wide = about["size"]
    rows = [["tap", "index", "channels", f"map at {wide} x {high} px (width x height)"]]
    for tap in about["taps"]:
        channels, map_height, map_width = tap["shape"]
        index = "" if tap["index"] is None else str(tap["index"])
        rows.append([tap["tap"], index, str(channels), f"{map_width} x {map_height}"])
    return f"{about['backbone']}: {sizes}\n\n{columns(rows)}"
