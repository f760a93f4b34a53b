"""A trained method: stored features in, score components out; saved and loaded without pickles.

Shapes: B batch, C channels, H W the feature map, P score components.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfbmr.config import Config
from nfbmr.devices import autocast, device_of
from nfbmr.errors import CheckpointError, NfbmrError
from nfbmr.features.backbone import shapes_without_weights
from nfbmr.features.bundled_weights import with_kept_weights
from nfbmr.features.keys import stored_shapes
from nfbmr.features.passes import passes_of
from nfbmr.features.table import Features, Shape, Tensors, TensorTable
from nfbmr.methods.networks import AnomalyModel
from nfbmr.methods.registry import networks_of
from nfbmr.paths import read_json, write_json
from nfbmr.scoring.fusion import Scorer
from nfbmr.tensors import read_tensors, write_tensors
from nfbmr.training.stages import Stage

_FORMAT = 3
READABLE = (2, _FORMAT)
"""Models of format 2 have no threshold for positions: they load, and give no predicted mask."""


@dataclass(frozen=True)
class Detector:
    """The networks of a method and the scorer that reads them.

    Attributes:
        config: The run's configuration, whole.
        shapes: (C, H, W) of each table that the networks read.
        weights_digest: Digest of the backbones' weights: prediction refuses another backbone's features.
        networks: The method's.
        scorer: Chosen on validation data.
    """

    config: Config
    shapes: tuple[Shape, ...]
    weights_digest: str
    networks: AnomalyModel
    scorer: Scorer | None = None

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return device_of(self.config.train.device)

    @torch.inference_mode()
    def maps(self, y: Tensors, z_BCHW: Tensor | None = None, *, stage: Stage | None = None) -> Tensor:
        """Score components of a batch of features, (B, P, H, W) float32 on the CPU.

        Args:
            y: Stored features, a (B, C, H, W) a table that is read.
            z_BCHW: Their latents, where they are stored as well; else the method computes what it needs.
            stage: Whose components, of the tables that it reads; by default those of the whole method.
        """
        judge = self.networks if stage is None else stage
        full = (stage or self.networks.stages[-1]).full_precision
        inputs = self._inputs(*y)
        with autocast("fp32" if full else self.config.train.precision, inputs[0].device):
            if self.networks.caches_latents and (stage is None or stage.reads_latents):
                z = self.networks.latents(*inputs) if z_BCHW is None else self._inputs(z_BCHW)[0]
                inputs = (*inputs, z)
            return judge.maps(*inputs).float().cpu()

    @torch.inference_mode()
    def latents(self, y: Tensors) -> Tensor:
        """What is stored of a batch of features, (B, C, H, W) float32 on the CPU."""
        inputs = self._inputs(*y)
        with autocast(self.config.train.precision, inputs[0].device):
            return self.networks.latents(*inputs).float().cpu()

    @torch.inference_mode()
    def embeddings(self, y: Tensors, z_BCHW: Tensor | None) -> dict[str, Tensor]:
        """Means over positions, (B, C) by the name of their space; latents are computed if not given."""
        if z_BCHW is None and self.networks.caches_latents:
            z_BCHW = self.latents(y)
        inputs = self._inputs(*y, *(() if z_BCHW is None else (z_BCHW,)))
        with autocast(self.config.train.precision, inputs[0].device):
            means = self.networks.embeddings(*inputs)
        return {name: features_BC.float().cpu() for name, features_BC in means.items()}

    def parameters(self) -> dict[str, int]:
        """Trained numbers by stage; what several networks share counts once."""
        modules = self.networks.modules().items()
        return {
            name: sum(p.numel() for p in module.parameters() if p.requires_grad) for name, module in modules
        }

    def size_bytes(self) -> int:
        """Of everything that is stored of it, measured numbers included."""
        tensors = (t for module in self.networks.modules().values() for t in module.state_dict().values())
        return sum(t.nbytes for t in tensors)

    def digest(self) -> str:
        """Of all that decides a score: the backbones' weights, the networks' numbers, the scorer."""
        sha = hashlib.sha256(f"{self.config.method} {self.weights_digest}".encode())
        for name, module in sorted(self.networks.modules().items()):
            for key, tensor in sorted(module.state_dict().items()):
                sha.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                sha.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        scorer = None if self.scorer is None else self.scorer.as_json()
        sha.update(json.dumps(scorer, sort_keys=True).encode())
        return sha.hexdigest()[:32]

    def check_weights(self, digest: str) -> None:
        """Refuse features of other weights than those that the model was trained on.

        Raises:
            CheckpointError: `digest` is not that of the model's backbones.
        """
        if digest != self.weights_digest:
            features = self.config.features
            raise CheckpointError(
                f"the model was trained on other weights of {features.backbone}",
                where=f"features.weights = {features.weights}",
                fix="use the weights file that it was trained with",
            )

    def check_shapes(self, shapes: tuple[Shape, ...]) -> None:
        """Refuse maps of other sizes than those that the model was trained on: its scores would mean nothing.

        Args:
            shapes: (C, H, W) of each table of features.

        Raises:
            CheckpointError: They differ, since this version brings images to another size for the backbone.
        """
        if shapes != self.shapes:
            features = self.config.features
            raise CheckpointError(
                f"the model was trained on maps of {self.shapes}, and images give maps of {shapes} now",
                where=f"features.backbone = {features.backbone}, features.size = {features.size}",
                fix="train again with this version, or predict with the one that the model is from",
            )

    def to(self, device: torch.device) -> Detector:
        """Move the networks."""
        for module in self.networks.modules().values():
            module.to(device)
        return self

    def eval(self) -> Detector:
        """Put the networks in evaluation mode."""
        for module in self.networks.modules().values():
            module.eval()
        return self

    def with_scorer(self, scorer: Scorer) -> Detector:
        """The same networks with another scorer."""
        return replace(self, scorer=scorer)

    def save(self, folder: Path) -> None:
        """Write the networks as safetensors, then ``model.json``: a model is whole or absent."""
        for name, module in self.networks.modules().items():
            write_tensors(folder / f"{name}.safetensors", module.state_dict())
        write_json(
            folder / "model.json",
            {
                "format": _FORMAT,
                "config": self.config.model_dump(mode="json"),
                "shapes": [list(shape) for shape in self.shapes],
                "weights_digest": self.weights_digest,
                "parts": list(self.networks.components),
                "scorer": None if self.scorer is None else self.scorer.as_json(),
            },
        )

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Detector:
        """Read a model's folder.

        Backbones' weights that lie in it (:mod:`nfbmr.features.bundled_weights`) are those that will be used.

        Raises:
            CheckpointError: It is damaged, or its tensors do not fit its configuration.
        """
        if not (folder / "model.json").exists():
            raise CheckpointError(
                "no model here", where=folder, fix="give a finished run or its model folder"
            )
        meta: dict[str, Any] = read_json(folder / "model.json")
        try:
            if meta["format"] not in READABLE:
                raise CheckpointError(f"made by another version of nfbmr (format {meta['format']})")
            config = Config.model_validate(meta["config"])
            features = with_kept_weights(config.features, folder)
            if features.engine == "auto":  # of a model from before OpenVINO could make them
                features = features.model_copy(update={"engine": "torch"})
            config = config.model_copy(update={"features": features})
            shapes = tuple((channels, height, width) for channels, height, width in meta["shapes"])
            detector = build(config, shapes, meta["weights_digest"])
            for name, module in detector.networks.modules().items():
                module.load_state_dict(read_tensors(folder / f"{name}.safetensors"))
            scorer = None if meta["scorer"] is None else Scorer.from_json(meta["scorer"])
        except (NfbmrError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"the model cannot be loaded ({error})",
                where=folder,
                fix="train again, or copy the folder whole",
            ) from error
        return replace(detector, scorer=scorer).to(torch.device(device)).eval()

    def _inputs(self, *tensors: Tensor) -> Tensors:
        """Stored tensors as networks take them."""
        device = _device_of(self.networks)
        return tuple(tensor.to(device, torch.float32) for tensor in tensors)


def build(config: Config, shapes: tuple[Shape, ...], weights_digest: str) -> Detector:
    """The untrained networks of a configuration; the seed fixes their first weights."""
    return Detector(config, shapes, weights_digest, networks_of(config.method)(shapes, config))


def blueprint(config: Config) -> Detector:
    """The networks of a configuration without numbers: to be counted, not used.

    Raises:
        BackboneError: There is no such backbone or tap, or it cannot work at this size.
    """
    shapes = shapes_read(config)
    try:
        with torch.device("meta"):  # no memory is taken, and nothing is drawn
            return build(config, shapes, "")
    except Exception:  # a method of somebody's own may look at its numbers while it is made
        return build(config, shapes, "")


def shapes_read(config: Config) -> tuple[Shape, ...]:
    """(C, H, W) of each table that a configuration's method will read: no picture and no weights are needed.

    Raises:
        BackboneError: There is no such backbone or tap, or it cannot work at this size.
    """
    shapes: list[Shape] = []
    for look in passes_of(config.features):
        tap_shapes = shapes_without_weights(look.backbone, look.taps, look.shape)
        shapes += stored_shapes(tap_shapes, look).values()
    tables = [TensorTable(torch.empty(0, *shape)) for shape in shapes]
    return networks_of(config.method).arranged(Features(tables), config.features).shapes


def _device_of(networks: AnomalyModel) -> torch.device:
    for module in networks.modules().values():
        for tensor in (*module.parameters(), *module.buffers()):
            return tensor.device
    return torch.device("cpu")
