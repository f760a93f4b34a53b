"""A trained method as MLflow runs it: the one file of code that each logged model brings along.

MLflow executes this file when a model is loaded; nothing in it is pickled. It imports nfbmr from the archive
beside the weights, unless this process has imported nfbmr already, and nothing else of this project.

In: a list, or a table with one column of images. Each is base64 text or bytes of an image file, a path, or an
array. Over HTTP: ``{"inputs": [...], "params": {...}}``. Out: a table with a row an image; see
:mod:`nfbmr.inference`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from nfbmr.inference import Answering

SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
"""MLflow sets this variable where it answers requests."""


IMAGE = "image"
"""The column that is read of a table with several."""


class DefectDetector(PythonModel):
    """Scores images of parts: how far each is from the good ones it was trained on.

    ``model_config`` takes ``device`` (auto, cpu, cuda), ``max_pixels`` (larger images are refused) and
    ``paths`` (whether items may be paths of this machine; auto: not where requests are answered).
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the networks."""
        if "nfbmr" not in sys.modules:
            sys.path.insert(0, context.artifacts["code"])
        from nfbmr.devices import limit_threads
        from nfbmr.inference import Answering

        limit_threads()
        config = context.model_config or {}
        self.paths = config.get("paths", "auto")
        self.answering: Answering = Answering.load(
            Path(context.artifacts["model"]),
            device=config.get("device", "auto"),
            max_pixels=int(config["max_pixels"]),
        )

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row an image; ``params`` takes ``threshold`` and ``heatmap``."""
        from nfbmr.errors import ConfigError

        params = params or {}
        paths = bool(self.paths)
        if self.paths == "auto":
            paths = os.environ.get(SERVING, "").lower() not in ("true", "1")
        try:
            rows = self.answering.rows(
                _items(model_input),
                threshold=params.get("threshold"),
                heatmaps=bool(params.get("heatmap")),
                paths=paths,
            )
        except ConfigError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return _table(rows, self.answering.columns)


def _items(asked: Any) -> list[Any]:
    """The images, one by one."""
    if isinstance(asked, dict):
        asked = pd.DataFrame({name: pd.Series(list(values)) for name, values in asked.items()})
    if isinstance(asked, pd.DataFrame):
        if IMAGE not in asked.columns and asked.shape[1] != 1:
            names = ", ".join(map(str, asked.columns))
            raise MlflowException.invalid_parameter_value(
                f"a column {IMAGE!r} is meant, or one column; there are: {names}"
            )
        column: pd.Series = asked[IMAGE] if IMAGE in asked.columns else asked.iloc[:, 0]
        return list(column)
    if isinstance(asked, list | tuple | pd.Series):
        return list(asked)
    # One image alone would as well be many: a grey one of three rows, or three of one row.
    raise MlflowException.invalid_parameter_value(
        f"a list or a table of images is meant, not a {type(asked).__name__}"
    )


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Rows as a table in which nothing is made a number that is none: JSON knows no NaN."""
    table = {}
    for name in columns:
        values = [row[name] for row in rows]
        types = {type(value) for value in values}
        dtype: Any = "float64" if types == {float} else "bool" if types == {bool} else "object"
        table[name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(table)


set_model(DefectDetector())
