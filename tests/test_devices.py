from __future__ import annotations

import os

import pytest
import torch

from nfbmr import devices, processors
from nfbmr.devices import autocast, autocast_dtype, device_of, limit_threads
from nfbmr.errors import ConfigError
from nfbmr.machine import usable_cores


def test_auto_is_a_device_that_exists() -> None:
    assert torch.ones(2, device=device_of("auto")).sum() == 2


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "cpu:x"])
def test_a_device_that_does_not_exist_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.device"):
        device_of(name)


def test_precision_decides_the_type_of_matrix_products() -> None:
    assert autocast_dtype("fp32", "cpu") is None
    assert autocast_dtype("bf16", "cpu") is torch.bfloat16
    assert autocast_dtype("auto", "cpu") in (None, torch.bfloat16)
    assert autocast_dtype("auto", "cpu") == autocast_dtype("auto", "cpu")
    x = torch.ones(2, 2)
    with autocast("bf16", "cpu"):
        assert (x @ x).dtype == torch.bfloat16
    with autocast("fp32", torch.device("cpu")):
        assert (x @ x).dtype == torch.float32


def test_auto_asks_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(devices, "has_bf16", lambda device, has=has: has)
        assert autocast_dtype("auto", "cpu") is dtype


def test_bfloat16_that_is_asked_for_and_emulated_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processors, "has_bf16", lambda device: False)
    processors.warn_if_emulated.cache_clear()
    for _ in range(2):
        assert autocast_dtype("bf16", "cpu") is torch.bfloat16
    assert caplog.text.count("train.precision=bf16: this processor only emulates bfloat16") == 1
    processors.warn_if_emulated.cache_clear()


def test_float16_is_never_computed_in() -> None:
    """On CPUs without its instructions it is hundreds of times slower."""
    for precision in ("auto", "fp32", "bf16"):
        assert autocast_dtype(precision, "cpu") is not torch.float16  # type: ignore[arg-type]


def test_threads_are_the_usable_cores_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", str(before))
        assert limit_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert limit_threads() == usable_cores()
        assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    finally:
        torch.set_num_threads(before)
