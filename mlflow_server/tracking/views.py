"""Views of MLflow's table of runs that come with an experiment: which columns, in which order.

MLflow 3.17 keeps views as tags of the experiment, and lists them under "Views". Its own first view shows
neither metrics nor settings.
"""

from __future__ import annotations

import json
from typing import Any

from mlflow_server.destination import FIRST_VIEW

PREFIX = "mlflow.sharedViewState."
"""What the tags begin with in which MLflow keeps saved views."""
_MADE = 1795824000000
"""MLflow sorts views by when they were made: ours are older than anybody's own."""

# The boxes to tick, and what is always there.
_WIDTHS = {"0": 73, "attributes.`Run Name`": 340, "runDateAndNestInfo": 150}
_SEARCHED = ("flow.blocks", "flow.hidden", "mapping.residual_blocks", "mapping.latent", "features.taps")
_RESULTS = ("image_auroc", "image_ap", "image_f1", "image_recall", "image_false_reject_rate", "pixel_auroc")


def view_tags() -> dict[str, str]:
    """The views, as tags of an experiment.

    Example:
        >>> sorted(key.removeprefix(PREFIX) for key in view_tags())
        ['nfbmr-runs', 'nfbmr-test', 'nfbmr-trials']
    """
    views = {
        FIRST_VIEW: (
            "Runs, with the trials of sweeps below them",
            _state(
                columns=[
                    _metric("best/image_auroc"),
                    _metric("validation/image_auroc"),
                    _metric("test/image_auroc"),
                    _metric("test/image_recall"),
                    _metric("test/image_false_reject_rate"),
                    _tag("nfbmr.method"),
                    _tag("nfbmr.state"),
                    "attributes.`Dataset`",
                ],
            ),
        ),
        "nfbmr-trials": (
            "Trials, the best on validation images first",
            _state(
                searchFilter="tags.`nfbmr.trial` != ''",
                orderByKey=_metric("validation/image_auroc"),
                columns=[
                    _metric("validation/image_auroc"),
                    *map(_param, _SEARCHED),
                    _metric("validation/image_auroc_low"),
                    _metric("validation/image_auroc_high"),
                    _metric("seconds/flow"),
                    _tag("nfbmr.plan"),
                    _tag("nfbmr.state"),
                ],
            ),
        ),
        "nfbmr-test": (
            "Results on test images, the best first",
            _state(
                searchFilter="metrics.`test/image_auroc` >= 0",
                orderByKey=_metric("test/image_auroc"),
                columns=[
                    *(_metric(f"test/{name}") for name in _RESULTS),
                    _tag("nfbmr.test_peeked"),
                    _tag("nfbmr.plan"),
                    "attributes.`Dataset`",
                ],
            ),
        ),
    }
    return {
        f"{PREFIX}{key}": json.dumps(
            {"name": name, "createdAt": _MADE - number, "updatedAt": _MADE - number, "state": state}
        )
        for number, (key, (name, state)) in enumerate(views.items())
    }


def _state(*, columns: list[str], **search: Any) -> str:
    widths = {**_WIDTHS, **{column: 8 * len(column.split("`")[1]) + 40 for column in columns}}
    return json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": columns,
            "columnOrder": list(widths),
            "columnWidths": widths,
            **search,
        }
    )


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _param(name: str) -> str:
    return f"params.`{name}`"


def _tag(name: str) -> str:
    return f"tags.`{name}`"
