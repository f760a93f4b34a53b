"""Weights: the same tensors whatever they came in, and never another model's."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nfbmr.errors import WeightsError
from nfbmr.features.models import new_model
from nfbmr.features.weights import has_packaged, resolve_weights, tensor_digest

NAME = "test_efficientnet"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return dict(new_model(NAME, seed=3).state_dict())


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    weights = resolve_weights(NAME, "random")
    torch.manual_seed(2)
    assert resolve_weights(NAME, "random").digest == weights.digest
    assert weights.digest.startswith("random-0-")
    assert resolve_weights(NAME, "random", seed=1).digest != weights.digest


def test_drawing_weights_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    new_model(NAME)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("wrap", ["plain", "module", "nested", "twice", "safetensors", "headless"])
def test_a_file_is_the_same_weights_however_it_was_saved(
    tmp_path: Path, tensors: dict[str, torch.Tensor], wrap: str
) -> None:
    plain = tmp_path / "plain with space é.pth"
    torch.save(tensors, plain)
    path = tmp_path / f"{wrap}.pth"
    content: Any = tensors
    if wrap in ("module", "twice"):
        content = {f"module.{k}": v for k, v in content.items()}
    if wrap == "twice":
        content = {f"model.{k}": v for k, v in content.items()}
    if wrap in ("nested", "twice"):
        content = {"epoch": 3, "state_dict": content}
    if wrap == "headless":
        content = {k: v for k, v in content.items() if not k.startswith("classifier")}
    if wrap == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    else:
        torch.save(content, path)
    weights = resolve_weights(NAME, str(path))
    assert weights.source == "file"
    assert weights.digest == resolve_weights(NAME, str(plain)).digest
    for name, tensor in weights.state_dict.items():
        assert torch.equal(tensor, tensors[name])


def test_other_values_have_another_digest(tensors: dict[str, torch.Tensor]) -> None:
    changed = {k: v.clone() for k, v in tensors.items()}
    next(iter(changed.values())).view(-1)[0] += 1e-3
    assert tensor_digest(changed) != tensor_digest(tensors)


def test_the_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    for other, says in [("test_resnet", "missing"), ("resnet18", "unexpected")]:
        path = tmp_path / f"{other}.pth"
        torch.save(new_model(other).state_dict(), path)
        with pytest.raises(WeightsError, match=says) as caught:
            resolve_weights(NAME, str(path))
        assert NAME in str(caught.value)


def test_a_deeper_model_does_not_pass_for_a_shallower_one(tmp_path: Path) -> None:
    path = tmp_path / "resnet34.pth"
    torch.save(new_model("resnet34").state_dict(), path)
    with pytest.raises(WeightsError, match="unexpected"):
        resolve_weights("resnet18", str(path))


def test_a_tensor_of_another_shape_is_named(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "shape.pth"
    torch.save(tensors | {"conv_stem.weight": torch.zeros(7, 3, 3, 3)}, path)
    with pytest.raises(WeightsError, match=r"conv_stem.weight is \(7, 3, 3, 3\)"):
        resolve_weights(NAME, str(path))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps({"a": _Evil()})])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_none_is_refused_and_never_executed(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="bad"):
        resolve_weights(NAME, str(path))


def test_without_weights_the_error_names_three_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for weights in ("auto", "hub", "packaged"):
        with pytest.raises(WeightsError) as caught:
            resolve_weights("regnety_002", weights)
        fix = caught.value.fix or ""
        assert "go online" in fix
        assert "file" in fix
        assert "tf_efficientnet_lite0" in fix
    with pytest.raises(WeightsError, match="nor a file"):
        resolve_weights(NAME, "weights/not/there.pth")


def test_the_packaged_weights_are_the_offline_default() -> None:
    assert has_packaged("tf_efficientnet_lite0")
    weights = resolve_weights("tf_efficientnet_lite0")
    assert weights.source == "packaged"
    model = new_model("tf_efficientnet_lite0")
    fit = model.load_state_dict(dict(weights.state_dict), strict=True)
    assert not fit.missing_keys
    # In the right order: what goes into a batch norm varies about as much as it did in training.
    ratios: list[float] = []

    def compare(norm: torch.nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        ratio = inputs[0].var((0, 2, 3)) / norm.running_var
        ratios.append(ratio.log().median().abs().item())

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(compare)
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        model(torch.nn.functional.interpolate(noise, size=160, mode="bicubic").clamp(-1, 1))
    assert torch.tensor(ratios).nanmedian() < 1.0
