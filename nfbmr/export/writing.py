"""A network as a file that other runtimes read: ONNX, and from it OpenVINO."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from nfbmr.errors import ExportError, MissingPackageError
from nfbmr.export.network import ExportedNetwork
from nfbmr.export.rounding import round_before_casts
from nfbmr.runtimes import import_openvino

Format = Literal["onnx", "openvino"]
"""What a graph is written as."""
FILES: dict[Format, str] = {"onnx": "model.onnx", "openvino": "model.xml"}
"""What a runtime is given; OpenVINO's weights lie beside it, in ``model.bin``."""
PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""Modules that a format needs."""
OPSET = 18
"""Of ONNX: the first whose Resize has antialiasing."""
_EXAMPLE = (2, 48, 64)
"""Images, height and width that a graph with open sizes is drawn with."""


def require(form: Format) -> None:
    """See that everything is installed before anything is loaded.

    Raises:
        MissingPackageError: It is not.
    """
    for package in PACKAGES[form]:
        try:
            import_openvino() if package == "openvino" else importlib.import_module(package)
        except (ImportError, MissingPackageError) as error:
            raise MissingPackageError(
                f"{form} needs a package that is not installed",
                where=package,
                fix='pip install "nfbmr[export]"',
            ) from error


def input_names(sizes: tuple[tuple[int, int], ...] | None) -> tuple[str, ...]:
    """Names of the inputs: ``image``, or one for each size that images come at.

    Example:
        >>> input_names(None), input_names(((256, 256), (640, 480)))
        (('image',), ('image_256x256', 'image_640x480'))
    """
    if sizes is None or len(sizes) == 1:
        return ("image",)
    return tuple(f"image_{height}x{width}" for height, width in sizes)


def output_names(has_map: bool) -> tuple[str, ...]:
    """Names of the outputs."""
    return ("score", "map", "decision") if has_map else ("score", "decision")


def write(network: ExportedNetwork, form: Format, folder: Path) -> None:
    """Write a network for a runtime.

    Args:
        network: On the CPU.
        form: ``onnx`` or ``openvino``.
        folder: Exists; :data:`FILES` says what is in it then.

    Raises:
        ExportError: The method has an operator that the format does not have.
    """
    onnx_file = folder / FILES["onnx"]
    write_onnx(network, onnx_file, casts=form == "onnx")
    if form == "onnx":
        return
    openvino = import_openvino()
    model = openvino.Core().read_model(onnx_file)
    openvino.save_model(model, folder / FILES["openvino"], compress_to_fp16=False)
    del model  # it reads the file's weights where they lie
    for file in folder.glob(f"{onnx_file.name}*"):
        file.unlink()


def write_onnx(network: ExportedNetwork, path: Path, *, casts: bool = True) -> None:
    """Draw the graph with open batch, and open image sizes where images are resized inside.

    Args:
        network: On the CPU.
        path: The file.
        casts: Whether the runtime rounds where the graph casts to 16 bits; else it is done in float32.

    Raises:
        ExportError: An operator cannot be had.
    """
    images, height, width = _EXAMPLE
    shapes = [(height, width)] if network.resizes else list(network.sizes)
    pixels = tuple(torch.randint(0, 256, (images, *shape, 3), dtype=torch.uint8) for shape in shapes)
    names = ("batch", "height", "width") if network.resizes else ("batch",)
    axes = dict.fromkeys(range(len(names)), torch.export.Dim.DYNAMIC)
    with torch.no_grad(), _quiet():
        try:
            program = torch.export.export(network, pixels, dynamic_shapes=((axes,) * len(pixels),))
            model: Any = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=input_names(None if network.resizes else network.sizes),
                output_names=output_names(network.has_map),
                verbose=False,
            )
        except Exception as error:  # whatever an operator that a method uses leads to
            raise ExportError(
                f"the network cannot be written as ONNX ({_first_line(error)})",
                where=network.method,
                fix="use nfbmr predict or nfbmr serve, or export another method",
            ) from error
        if not casts:
            round_before_casts(model.model.graph)
        _clean(model, names)
        model.save(path)


def _clean(model: Any, names: tuple[str, ...]) -> None:
    """Name the open axes, which the exporter counts, and drop its notes: they hold paths of this machine."""
    graph = model.model.graph
    counted = [str(axis) for axis in graph.inputs[0].shape]
    model.rename_axes(dict(zip(counted, names, strict=False)))
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def _first_line(error: Exception) -> str:
    """What the innermost reason says, in one line."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter prints of its progress, and of its own deprecations."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
