"""What ``nfbmr export`` wrote of a model, as artifacts of the model on a server.

::

    exports/
      onnx/       model.onnx, model.json
      openvino/   model.xml, model.bin, model.json
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nfbmr.data.images import file_digest
from nfbmr.errors import RegistryError
from nfbmr.export.exported import read_description
from nfbmr.methods.detector import Detector

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPORTS = "exports"
"""Folder of a model's artifacts."""


def checked_export(folder: Path, model: Path) -> str:
    """The format of an exported model, once it is known to be this model, whole.

    Args:
        folder: What ``nfbmr export`` wrote.
        model: Folder of a run's model.

    Raises:
        CheckpointError: There is no exported model.
        RegistryError: It is another model's, or its files are not those that were written.
    """
    about = read_description(folder)
    again = f"nfbmr export RUN --format {about['format']} --out DIR"
    for name, digest in about["digests"].items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise RegistryError(
                "an exported file is missing or was changed",
                where=folder / name,
                fix=f"export again: {again}",
            )
    if about["model_digest"] != Detector.load(model).digest():
        raise RegistryError(
            "it was exported of another model than the one that is registered",
            where=folder,
            fix=f"export this run's model: {again}",
        )
    return str(about["format"])


def send_export(client: MlflowClient, model_id: str, folder: Path, form: str) -> None:
    """Make an exported model's files artifacts of a model; those of the same format are replaced."""
    for file in (*read_description(folder)["files"], "model.json"):
        client.log_model_artifact(model_id, str(folder / file), f"{EXPORTS}/{form}")
