"""An exported model, loaded with its own runtime: images in, scores out. Imports no torch of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.images import load_image
from nfbmr.data.pictures import Pixels, resized
from nfbmr.data.sources import Source
from nfbmr.errors import CheckpointError
from nfbmr.machine import usable_cores
from nfbmr.paths import read_json
from nfbmr.runtimes import import_openvino

DESCRIPTION = "model.json"
"""The file beside a graph that says how it is used."""
FORMAT = "nfbmr-export-1"
"""What that file calls its own form."""
Outputs = dict[str, NDArray[Any]]
"""A graph's results by name."""


@dataclass(frozen=True)
class ExportedModel:
    """What :func:`nfbmr.export.export_model.export_model` wrote.

    Attributes:
        about: What its ``model.json`` says.
        session: Named tensors, (B, H, W, 3) uint8, to named outputs.

    Example:
        model = ExportedModel.load(Path("line-7"))
        model.score(Path("part.png"))["score"]
    """

    about: dict[str, Any]
    session: Callable[[dict[str, Pixels]], Outputs]

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> ExportedModel:
        """Read a folder.

        Args:
            folder: With its ``model.json``.
            threads: That the runtime may use; by default one a usable core.

        Raises:
            CheckpointError: There is no exported model.
            MissingPackageError: Its runtime is not installed.
        """
        from nfbmr.export.writing import require

        about = read_description(folder)
        require(about["format"])
        start = {"onnx": onnx_session, "openvino": openvino_session}[about["format"]]
        names = [port["name"] for port in about["outputs"]]
        return cls(about, start(folder / about["files"][0], names, threads or usable_cores()))

    def score(self, *images: Source) -> Outputs:
        """Outputs of a batch of images, decoded as the product decodes them.

        Args:
            images: Images of one size, where the model resizes them itself.

        Raises:
            ImageError: One cannot be read.
        """
        decoded = [load_image(image, self.about["depth"]) for image in images]
        return self.session(
            {
                port["name"]: np.stack([_pixels(image, port["size"]) for image in decoded])
                for port in self.about["inputs"]
            }
        )


def read_description(folder: Path) -> dict[str, Any]:
    """The ``model.json`` of an exported model.

    Raises:
        CheckpointError: There is none.
    """
    file = folder / DESCRIPTION
    about = read_json(file) if file.is_file() else {}
    if not isinstance(about, dict) or about.get("kind") != FORMAT:
        raise CheckpointError("no exported model here", where=folder, fix="give what nfbmr export wrote")
    return about


def _pixels(image: Image.Image, size: list[int] | None) -> Pixels:
    """(H, W, 3) as an input takes them; resized where it is not done inside."""
    if size is not None:
        pixels_SSC = resized(image, (size[0], size[1]))
        return np.broadcast_to(pixels_SSC, (*pixels_SSC.shape[:2], 3))
    return np.asarray(image.convert("RGB"))


def onnx_session(file: Path, outputs: list[str], threads: int) -> Callable[[dict[str, Pixels]], Outputs]:
    """ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda pixels: dict(zip(outputs, session.run(outputs, pixels), strict=True))


def openvino_session(file: Path, outputs: list[str], threads: int) -> Callable[[dict[str, Pixels]], Outputs]:
    """OpenVINO on the CPU, in float32: left alone it takes bfloat16 where the processor has it."""
    openvino = import_openvino()
    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = openvino.Core().compile_model(file, "CPU", how)

    def run(pixels: dict[str, Pixels]) -> Outputs:
        results = model([np.ascontiguousarray(pixels_BHWC) for pixels_BHWC in pixels.values()])
        return {name: np.array(results[i]) for i, name in enumerate(outputs)}

    return run
