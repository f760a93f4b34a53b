"""From a finished model to a folder that other runtimes run: drawn, written, checked, and only then there.

::

    DIR/
      model.onnx         or model.xml and model.bin
      model.json         sizes, labels, threshold, versions, what was checked
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from nfbmr.data.given import images_in
from nfbmr.data.images import file_digest
from nfbmr.errors import CheckpointError, ConfigError, DataError, OutputError
from nfbmr.export.check import Check, Sample, check
from nfbmr.export.exported import DESCRIPTION, FORMAT, ExportedModel
from nfbmr.export.network import ExportedNetwork
from nfbmr.export.writing import FILES, PACKAGES, Format, input_names, output_names, require, write
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths, model_folder, read_json, write_json
from nfbmr.prediction import Predictor
from nfbmr.results import read_sets
from nfbmr.scoring.regions import Limit
from nfbmr.text import count

Resize = Literal["auto", "inside", "outside"]
"""Where an image is brought to the model's size: in the graph, or before it."""
LABELS = ("good", "defective")
"""What a decision of 0 and of 1 means."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: Where.
        about: Its ``model.json``.
        check: How it compares with the product.
    """

    folder: Path
    about: dict[str, Any]
    check: Check


def export_model(
    model: Path,
    out: Path,
    *,
    form: Format = "onnx",
    resize: Resize = "auto",
    images: Sequence[Path] = (),
    limit: int | None = None,
) -> Export:
    """Write a finished model for another runtime.

    The network is drawn in float32 on the CPU, run by that runtime on images, and kept where its scores are
    the product's own (:mod:`nfbmr.export.check`).

    Args:
        model: A finished run's folder, or its model folder.
        out: A folder that does not exist yet, or is empty.
        form: ``onnx`` or ``openvino``.
        resize: Whether images of any size are resized inside the graph; ``auto``: where that is the resizing
            that the model was trained with to the last bit, that is in ONNX.
        images: Files or folders to check with; by default the run's own test images.
        limit: Check with so many of them, evenly drawn; None for all.

    Raises:
        MissingPackageError: The format's packages are not installed.
        ConfigError: The model cannot be exported in this way; why.
        ExportError: It would give other scores. Nothing is written.
    """
    require(form)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise OutputError(
            "something is there already", where=out, fix="give --out a folder that is new or empty"
        )
    detector = in_float32(Detector.load(model_folder(model)))
    if detector.config.features.compute == "bf16":
        raise ConfigError(
            "the model's features are computed in bfloat16, a runtime's in float32: scores would differ",
            where="features.compute = bf16",
            fix="train again with --set features.compute=fp32",
        )
    predictor = Predictor(detector, "cpu")
    sample = sample_of(model, images, limit)
    network = ExportedNetwork(detector, resizes=_resizes(detector, form, resize))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
        stage = Path(name) / "export"
        stage.mkdir()
        log.info("drawing the network and writing it as %s", form)
        write(network, form, stage)
        about = description(detector, network, form, stage)
        write_json(stage / DESCRIPTION, about)
        log.info("checking it on %s", sample.what)
        checked = check(ExportedModel.load(stage), predictor, sample)
        about["checked"] = checked.as_json()
        write_json(stage / DESCRIPTION, about)
        if out.exists():
            out.rmdir()
        shutil.move(stage, out)
    return Export(out, about, checked)


def in_float32(detector: Detector) -> Detector:
    """The same model in the arithmetic that a processor without bfloat16 takes of itself.

    What is left to the processor (``train.precision=auto``) is float32 in a graph. A model that asks for
    bfloat16 keeps it, and is compared as it is.
    """
    config = detector.config
    if config.train.precision != "auto":
        return detector
    train = config.train.model_copy(update={"precision": "fp32", "device": "cpu"})
    return replace(detector, config=config.model_copy(update={"train": train}))


def sample_of(model: Path, images: Sequence[Path], limit: int | None) -> Sample:
    """Images to check an export with: those given, else the run's test images, else those kept with a model.

    Raises:
        DataError: There are none.
    """
    if images:
        files, what = images_in(images), "the images given"
    elif RunPaths(model).scores.exists():
        sides = {scored.side: scored for scored in read_sets(RunPaths(model).scores, RunPaths(model).maps)}
        side = "test" if "test" in sides else "validation"
        scored_files = [sample.path for sample in sides[side].samples]
        files = [file for file in dict.fromkeys(scored_files) if file.exists()]
        what = f"the run's {side} images"
    else:
        # What travels with a registered model: mlflow_server/packaging/evidence.py
        kept_with = model.parent / "evidence" / "references" / "references.json"
        rows = read_json(kept_with) if kept_with.exists() else []
        files, what = [kept_with.parent / row["file"] for row in rows], "the test images kept with the model"
    if not files:
        raise DataError(
            "there is no image to check the export with", where=model, fix="give some: --images FOLDER"
        )
    if limit is not None and limit < len(files):
        chosen = [files[i * len(files) // limit] for i in range(limit)]
        return Sample(tuple(chosen), f"{limit} of {what}, evenly drawn of {len(files)}")
    return Sample(tuple(files), f"{what}, all {len(files)}")


def _resizes(detector: Detector, form: Format, resize: Resize) -> bool:
    """Whether images are resized inside.

    Raises:
        ConfigError: It cannot be done inside, or outside.
    """
    if form == "openvino" and resize == "inside":
        raise ConfigError(
            "OpenVINO computes in float32 what the resizing needs in double precision: pixels would differ",
            where="--resize inside",
            fix="leave it at auto: images then come at the sizes in model.json; or export to ONNX",
        )
    inside = form == "onnx" if resize == "auto" else resize == "inside"
    photometric = detector.config.features.photometric
    if not inside and photometric != "none":
        raise ConfigError(
            "the model evens out an image's brightness before it is resized, and so has to resize it",
            where=f"features.photometric = {photometric}",
            fix="export to ONNX with --resize inside, or train with features.photometric=none",
        )
    return inside


def description(detector: Detector, network: ExportedNetwork, form: Format, folder: Path) -> dict[str, Any]:
    """What ``model.json`` says of a model, but for the check.

    Raises:
        CheckpointError: The model has no threshold.
    """
    config, scorer = detector.config, detector.scorer
    if scorer is None:
        raise CheckpointError("the model has no threshold yet", fix="finish the run first")
    sizes = None if network.resizes else network.sizes
    names = sorted((file.name for file in folder.iterdir()), key=lambda name: name != FILES[form])
    return {
        "kind": FORMAT,
        "format": form,
        "method": config.method,
        "labels": list(LABELS),
        "inputs": [
            {"name": name, "layout": "NHWC", "type": "uint8", "colour": "RGB", "size": size}
            for name, size in zip(
                input_names(sizes), [None] if sizes is None else map(list, sizes), strict=True
            )
        ],
        "sizes": [list(size) for size in network.sizes],
        "resizing": "bicubic, antialiased, 8 bits",
        "depth": config.features.bits,
        "photometric": config.features.photometric,
        "outputs": [
            {"name": name, "type": kind}
            for name, kind in zip(
                output_names(network.has_map),
                ("float32", "float32", "bool") if network.has_map else ("float32", "bool"),
                strict=True,
            )
        ],
        "threshold": scorer.threshold,
        "typical": _or_none(scorer.limit, "typical"),
        "pixel_threshold": _or_none(scorer.pixel_limit, "threshold") if network.has_map else None,
        "pixel_typical": _or_none(scorer.pixel_limit, "typical") if network.has_map else None,
        "colours": list(scorer.colours) if network.has_map else None,
        "test_peeked": config.selection.on == "test",
        "model_digest": detector.digest(),
        "files": names,
        "digests": {name: file_digest(folder / name) for name in names},
        "versions": versions(form),
    }


def _or_none(limit: Limit | None, name: str) -> float | None:
    """A limit's value, None where it is not known: JSON has no NaN."""
    value = math.nan if limit is None else float(getattr(limit, name))
    return None if math.isnan(value) else value


def versions(form: Format) -> dict[str, str]:
    """Of all that made the file."""
    return {name: metadata.version(name) for name in ("nfbmr", "torch", "timm", *PACKAGES[form])}


def text_of(exported: Export) -> str:
    """What a person is told."""
    about, checked = exported.about, exported.check
    inputs = ", ".join(
        f"{port['name']} ({'any size' if port['size'] is None else 'x'.join(map(str, port['size']))})"
        for port in about["inputs"]
    )
    size = sum((exported.folder / name).stat().st_size for name in about["files"])
    file = exported.folder / about["files"][0]
    return "\n".join(
        [
            f"{about['method']} as {about['format']}: {file}, {size / 1e6:.1f} MB",
            f"  inputs    {inputs}",
            f"  outputs   {', '.join(port['name'] for port in about['outputs'])}",
            f"  threshold {about['threshold']:.6g}",
            f"  checked   {count(checked.images, 'image')} ({checked.sample}): scores differ by "
            f"{checked.largest:.1e} of their spread at most",
        ]
    )
