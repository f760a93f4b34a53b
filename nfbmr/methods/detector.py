"""A trained method: stored features in, score parts out; saved and loaded without pickles.

Shapes: B batch, C channels, H W the feature map, P = 3 score parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfbmr.config import Config
from nfbmr.errors import CheckpointError, NfbmrError
from nfbmr.flows.flow import Flow
from nfbmr.mapping.bidirectional import BidirectionalMapping
from nfbmr.mapping.bmr import BMR
from nfbmr.mapping.pfm import BPFM
from nfbmr.methods.table import method_named
from nfbmr.paths import read_json, write_json
from nfbmr.scoring.fusion import Scorer
from nfbmr.scoring.maps import part_maps
from nfbmr.tensors import read_tensors, write_tensors
from nfbmr.training.compute import autocast

Shape = tuple[int, int, int]

MAPPINGS: Mapping[str, Callable[..., BidirectionalMapping]] = {"bmr": BMR, "b-pfm": BPFM}
"""What a method's second stage trains: (channels, configuration, seed=) to networks."""


@dataclass(frozen=True)
class Detector:
    """The networks of a method and the scorer that reads them.

    Attributes:
        config: The run's configuration, whole.
        shape: (C, H, W) of the features.
        weights_digest: Of the backbone's weights: prediction refuses another backbone's features.
        flow: The TNF.
        mapping: The mapping networks; None for a method without.
        scorer: Chosen on validation data.
    """

    config: Config
    shape: Shape
    weights_digest: str
    flow: Flow
    mapping: BidirectionalMapping | None
    scorer: Scorer | None = None

    @torch.inference_mode()
    def parts(self, y_BCHW: Tensor, z_BCHW: Tensor | None = None) -> Tensor:
        """Score parts of a batch of features, (B, 3, H, W) float32 on the CPU.

        Source errors are taken on standardised features, the ones that the mapping was trained on.

        Args:
            y_BCHW: Stored features.
            z_BCHW: Their latents, where they are stored as well; else the flow is run.
        """
        device = next(self.flow.parameters()).device
        y = y_BCHW.to(device, torch.float32)
        with autocast(self.config.train.precision, device):
            # In the precision of stored latents, so that a score is the same with and without a store.
            z = self.flow(y)[0].half().float() if z_BCHW is None else z_BCHW.to(device, torch.float32)
            standard = self.flow.standardise(y)
            y_hat, z_hat = (None, None) if self.mapping is None else self.mapping(standard, z)
        return part_maps(standard, z, y_hat, z_hat, pool=self.config.scoring.pool).cpu()

    @torch.inference_mode()
    def embeddings(self, y_BCHW: Tensor, z_BCHW: Tensor) -> dict[str, Tensor]:
        """Means over positions, (B, C): S source features, T mapped to the target domain, NF latents."""
        device = next(self.flow.parameters()).device
        y = y_BCHW.to(device, torch.float32)
        spaces = {"S": y}
        if self.mapping is not None:
            standard = self.flow.standardise(y)
            with autocast(self.config.train.precision, device):
                spaces["T"] = self.mapping.target(standard)
        spaces["NF"] = z_BCHW.to(device, torch.float32)
        return {name: features.float().mean((2, 3)).cpu() for name, features in spaces.items()}

    def parameters(self) -> dict[str, int]:
        """Trained numbers by stage; the block that both mapping networks share counts once."""
        modules = self._modules().items()
        return {name: sum(p.numel() for p in module.parameters()) for name, module in modules}

    def with_scorer(self, scorer: Scorer) -> Detector:
        """The same networks with another scorer."""
        return replace(self, scorer=scorer)

    def save(self, folder: Path) -> None:
        """Write the networks as safetensors, then ``model.json``: a model is whole or absent."""
        for name, module in self._modules().items():
            write_tensors(folder / f"{name}.safetensors", module.state_dict())
        write_json(
            folder / "model.json",
            {
                "format": 1,
                "config": self.config.model_dump(mode="json"),
                "shape": list(self.shape),
                "weights_digest": self.weights_digest,
                "scorer": None if self.scorer is None else self.scorer.as_json(),
            },
        )

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Detector:
        """Read a model's folder.

        Raises:
            CheckpointError: It is damaged, or its tensors do not fit its configuration.
        """
        if not (folder / "model.json").exists():
            raise CheckpointError(
                "no model here", where=folder, fix="give a finished run or its model folder"
            )
        meta: dict[str, Any] = read_json(folder / "model.json")
        try:
            config = Config.model_validate(meta["config"])
            channels, height, width = meta["shape"]
            detector = build(config, (channels, height, width), meta["weights_digest"])
            for name, module in detector._modules().items():
                module.load_state_dict(read_tensors(folder / f"{name}.safetensors"))
                module.eval().to(device)
            scorer = None if meta["scorer"] is None else Scorer.from_json(meta["scorer"])
        except (NfbmrError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"the model cannot be loaded ({error})",
                where=folder,
                fix="train again, or copy the folder whole",
            ) from error
        return replace(detector, scorer=scorer)

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"flow": self.flow} | ({} if self.mapping is None else {"mapping": self.mapping})


def build(config: Config, shape: Shape, weights_digest: str) -> Detector:
    """The untrained networks of a configuration; the seed fixes their first weights."""
    flow = Flow(shape, config.flow, seed=config.seed)
    kind = method_named(config.method).mapping
    mapping = None if kind is None else MAPPINGS[kind](shape[0], config.mapping, seed=config.seed + 1)
    return Detector(config, shape, weights_digest, flow, mapping)
