"""``nfbmr methods``: the detectors there are, where they come from, and what each is run with."""

from __future__ import annotations

from typing import Any

import click

from nfbmr.cli.options import emit, json_option


@click.command()
@click.argument("name", required=False)
@json_option
def methods(name: str | None, as_json: bool) -> None:
    """List the methods; with a NAME, show that one's settings, its own and as published.

    Parameters are counted at the default setting. Those measured on images (a bank of patches, means) are not
    among them, since their number depends on the images.
    """
    from nfbmr.methods.registry import method_named, methods

    if name is None:
        rows = [_about(method) for method in methods()]
        emit({"methods": rows}, as_json=as_json, text=_list(rows))
        return
    method_named(name)  # refuses a name there is not
    emit(_whole(name), as_json=as_json, text=_page(_whole(name)))


def _about(name: str) -> dict[str, Any]:
    """A method's row: what it is, and its size at the default setting.

    Rows of our own methods are kept in the machine's cache until a version or this package's code is another:
    to count parameters, every network has to be built.
    """
    from nfbmr.disk_cache import cached, code_digest, versions
    from nfbmr.methods.registry import METHODS, method_named

    if METHODS.get(name) is not method_named(name):
        return _row(name)
    about = {"method": name, "nfbmr": code_digest(), **versions("torch", "torchvision", "timm", "FrEIA")}
    return cached("methods", about, lambda: _row(name), dump=dict, load=dict)


def _row(name: str) -> dict[str, Any]:
    import nfbmr
    from nfbmr.methods.detector import blueprint
    from nfbmr.methods.registry import method_named

    method = method_named(name)
    detector = blueprint(nfbmr.configure(settings={"method": name}))
    return {
        "name": name,
        "title": method.title,
        "source": method.source,
        "stages": list(method.stages),
        "score_parts": list(detector.networks.components),
        "features": [list(shape) for shape in detector.shapes],
        "parameters": detector.parameters(),
        "published": list(method.published),
    }


def _whole(name: str) -> dict[str, Any]:
    from nfbmr.methods.registry import method_named

    method = method_named(name)
    settings = {
        configuration: {"method": name, **values} for configuration, values in method.published.items()
    }
    return {**_about(name), "defaults": method.defaults, "as_published": settings}


def _list(rows: list[dict[str, Any]]) -> str:
    from nfbmr.text import columns

    header = ["method", "what it is", "stages", "parameters", "as published: --config", "source"]
    cells = [
        [
            row["name"],
            row["title"],
            " + ".join(row["stages"]),
            f"{sum(row['parameters'].values()):,}" if any(row["parameters"].values()) else "measured",
            ", ".join(row["published"]),
            row["source"],
        ]
        for row in rows
    ]
    return columns([header, *cells])


def _page(about: dict[str, Any]) -> str:
    from nfbmr.yaml_text import lines_of

    counted = ", ".join(f"{stage} {count:,}" for stage, count in about["parameters"].items())
    maps = ", ".join(" x ".join(map(str, shape)) for shape in about["features"])
    lines = [
        f"{about['name']}: {about['title']}",
        f"  source       {about['source']}",
        f"  reads        {maps}",
        f"  parameters   {counted}",
        f"  components   {', '.join(about['score_parts'])}",
        "",
        "its own defaults",
        *(f"  {line}" for line in [*lines_of(about["defaults"])] or ["none"]),
    ]
    for configuration, settings in about["as_published"].items():
        lines += [
            "",
            f"as published: --config {configuration}",
            *(f"  {line}" for line in lines_of(settings)),
        ]
    return "\n".join(lines)
