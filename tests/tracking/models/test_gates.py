"""Each gate says what it measured, what the limit was, and why; and refuses what it should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nfbmr
from mlflow_server.packaging.packing import pack
from mlflow_server.registry.gate_result import GateResult
from mlflow_server.registry.gate_settings import GateSettings
from mlflow_server.registry.gates import Case, judge
from mlflow_server.registry.packed_model import PackedModel, PairedScores, evaluate_again, recorded
from mlflow_server.registry.registry import Registry
from mlflow_server.registry.sandbox import Visit, enter
from nfbmr.data.layouts import load_dataset
from nfbmr.errors import RegistryError
from nfbmr.evaluation.evaluation import Scores
from nfbmr.paths import read_json, write_json

LAX = GateSettings(false_rejects=1.0)
"""Three validation images say nothing of a threshold."""

QUICK = LAX.model_copy(update={"reproduces": "off", "latency": "off"})
"""Without the gates that start a process."""


@pytest.fixture(scope="module")
def contenders(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PackedModel]:
    root = tmp_path_factory.mktemp("contenders")
    for name in ("first", "second", "elsewhere"):
        pack(getattr(runs, name), root / name)
    return {name: PackedModel(name, root / name) for name in ("first", "second", "elsewhere")}


@pytest.fixture(scope="module")
def visit(contenders: dict[str, PackedModel]) -> Visit:
    """What came of the first one in a clean process; once for all tests."""
    first = contenders["first"]
    return enter(first.folder, [reference.file for reference in first.evidence.references])


def found(case: Case, visit: Visit | None = None) -> dict[str, GateResult]:
    if visit is not None:
        case.__dict__["visit"] = visit
    findings = {finding.gate: finding for finding in judge(case)}
    for finding in findings.values():
        assert finding.sentence
        json.dumps(finding.as_json(), allow_nan=False)
    return findings


@pytest.mark.slow
def test_a_good_model_passes_every_gate(contenders: dict[str, PackedModel], visit: Visit) -> None:
    case = Case(contenders["first"], contenders["second"], LAX.model_copy(update={"not_worse": 1.0}))
    findings = found(case, visit)
    assert [finding.passed for finding in findings.values()] == [True] * 8
    assert findings["reproduces"].measured < 1e-4
    assert findings["reproduces"].details["images"] == 6
    assert findings["same_data"].measured == "same"
    assert findings["latency"].measured > 0
    assert 10 < findings["size"].measured < 20


@pytest.mark.slow
def test_budgets_that_are_too_small_refuse(contenders: dict[str, PackedModel], visit: Visit) -> None:
    settings = LAX.model_copy(update={"latency": 1e-6, "size": 1.0, "reproduces": 0.0})
    findings = found(Case(contenders["first"], None, settings), visit)
    assert not findings["latency"].passed
    assert not findings["size"].passed
    assert findings["reproduces"].passed == (findings["reproduces"].measured == 0)


@pytest.mark.slow
def test_a_model_that_was_damaged_in_the_registry(contenders: dict[str, PackedModel], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(contenders["first"].folder, folder)
    weights = folder / "artifacts" / "model" / "mapping.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    findings = found(Case(PackedModel("damaged", folder), None, LAX))
    assert not findings["reproduces"].passed
    assert "does not load in a clean process" in findings["reproduces"].sentence
    assert not findings["latency"].passed


@pytest.mark.slow
def test_a_model_with_other_weights_than_it_was_evaluated_with(
    contenders: dict[str, PackedModel], tmp_path: Path
) -> None:
    folder = tmp_path / "swapped"
    shutil.copytree(contenders["first"].folder, folder)
    other = contenders["second"].folder / "artifacts" / "model" / "flow.safetensors"
    shutil.copyfile(other, folder / "artifacts" / "model" / "flow.safetensors")
    reproduces = found(Case(PackedModel("swapped", folder), None, LAX))["reproduces"]
    assert not reproduces.passed
    assert reproduces.measured > 1e-3
    assert "does not give the recorded scores" in reproduces.sentence


def test_a_gate_that_is_off_neither_passes_nor_refuses(contenders: dict[str, PackedModel]) -> None:
    findings = found(Case(contenders["first"], None, QUICK))
    assert findings["latency"].passed is None
    assert findings["latency"].limit == "off"


def test_without_a_champion_there_is_nothing_to_be_worse_than(contenders: dict[str, PackedModel]) -> None:
    findings = found(Case(contenders["first"], None, QUICK))
    assert findings["same_data"].passed
    assert findings["not_worse"].passed
    assert "no champion" in findings["not_worse"].sentence


@pytest.mark.slow
def test_peeking_and_leaking_are_refused(tiny: Callable[..., Any], textures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(textures, data)
    train = sorted(data.glob("*/train/good/*.png"))
    for path, test in zip(train, sorted(data.glob("*/test/good/*.png")), strict=False):
        shutil.copyfile(path, test)
    run = Path(nfbmr.train(tiny(data__path=str(data), selection__on="test"))["run_dir"])
    pack(run, tmp_path / "packed")
    findings = found(Case(PackedModel("peeker", tmp_path / "packed"), None, QUICK))
    assert findings["not_peeked"].passed is False
    assert findings["no_leak"].passed is False
    assert "leaks" in findings["no_leak"].sentence


@pytest.mark.slow
def test_a_trial_that_never_saw_its_test_set_is_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    from nfbmr.run import execute_run, journal_only, new_run
    from nfbmr.stopping import StopRequest

    run = new_run(tiny())
    with StopRequest() as stop:
        execute_run(run, journal_only, stop, test=False)
    pack(run.paths.root, tmp_path / "packed")
    findings = found(Case(PackedModel("trial", tmp_path / "packed"), None, QUICK))
    assert findings["no_leak"].passed is False
    assert findings["false_rejects"].passed is False
    assert "before the test set was read" in findings["no_leak"].sentence


def test_a_threshold_of_few_images_is_refused_unless_allowed(contenders: dict[str, PackedModel]) -> None:
    strict = found(Case(contenders["first"], None, QUICK.model_copy(update={"false_rejects": 0.25})))
    finding = strict["false_rejects"]
    assert not finding.passed
    assert finding.details["images"] == finding.details["parts"] == 3
    assert finding.measured == finding.details["rate"]["high"] > 0.5
    assert "3 parts cannot tell" in finding.sentence
    assert found(Case(contenders["first"], None, QUICK))["false_rejects"].passed


# Compared with the champion


def duel(first: Any, second: Any, defective: int) -> PairedScores:
    names = tuple(map(str, range(len(first))))
    defects = tuple("crack" if i < defective else "good" for i in range(len(first)))
    return PairedScores(
        "made up",
        True,
        Scores(names, defects, np.asarray(first, dtype=float)),
        Scores(names, defects, np.asarray(second, dtype=float)),
        (0.5, 0.5),
    )


def not_worse(case: Case, given: PairedScores) -> GateResult:
    case.__dict__["paired_scores"] = given
    return found(case)["not_worse"]


def scores(quality: float, seed: int, n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) + quality * (np.arange(n) < n // 2)


@pytest.mark.parametrize(
    ("own", "other", "passed", "word"),
    [
        (2.5, 1.5, True, "is not worse"),
        (1.5, 2.5, False, "is worse by more than"),
        (2.0, 2.0, None, ""),
    ],
)
def test_not_worse_is_decided_at_the_end_of_the_interval(
    contenders: dict[str, PackedModel], own: float, other: float, passed: bool | None, word: str
) -> None:
    case = Case(contenders["first"], contenders["second"], QUICK)
    given = duel(scores(own, 0), scores(other, 1), 200)
    finding = not_worse(case, given)
    low = finding.details["difference"]["low"]
    assert finding.passed == (low >= -0.02)
    if passed is not None:
        assert finding.passed is passed
        assert word in finding.sentence


def test_the_same_scores_are_not_worse_by_any_margin(contenders: dict[str, PackedModel]) -> None:
    values = scores(1.0, 0)
    case = Case(contenders["first"], contenders["second"], QUICK.model_copy(update={"not_worse": 0.0}))
    finding = not_worse(case, duel(values, values, 200))
    assert finding.passed
    assert finding.measured == 0.0


def test_pairing_sees_what_two_intervals_would_hide(contenders: dict[str, PackedModel]) -> None:
    """Hard images are hard for both, so that a small difference shows on few images."""
    values = scores(1.0, 0, 60)
    better = values + 0.15 * (np.arange(60) < 30)
    case = Case(contenders["first"], contenders["second"], QUICK.model_copy(update={"not_worse": 0.0}))
    finding = not_worse(case, duel(better, values, 30))
    assert finding.passed
    single = np.ptp([finding.details["difference"]["low"], finding.details["difference"]["high"]])
    assert single < 0.06


def test_too_few_images_cannot_tell(contenders: dict[str, PackedModel]) -> None:
    case = Case(contenders["first"], contenders["second"], QUICK)
    finding = not_worse(case, duel(scores(1.0, 0, 20), scores(1.0, 1, 20), 10))
    assert not finding.passed
    assert "20 images cannot tell" in finding.sentence


def test_images_of_one_class_define_no_auroc(contenders: dict[str, PackedModel]) -> None:
    case = Case(contenders["first"], contenders["second"], QUICK)
    finding = not_worse(case, duel(scores(1.0, 0, 20), scores(1.0, 1, 20), 0))
    assert not finding.passed
    assert "not defined" in finding.sentence


def test_recorded_scores_are_compared_where_the_images_are_the_same(
    contenders: dict[str, PackedModel],
) -> None:
    both = recorded(contenders["first"], contenders["second"])
    assert both is not None
    assert len(both.first) == 12
    assert both.first.names == both.second.names
    assert recorded(contenders["first"], contenders["elsewhere"]) is None
    summary = contenders["first"].evidence.summary
    own, _ = both.values("image_auroc")
    assert own == pytest.approx(summary.estimate("test").value)


def test_another_split_is_evaluated_again(contenders: dict[str, PackedModel]) -> None:
    findings = found(Case(contenders["first"], contenders["elsewhere"], QUICK))
    assert findings["same_data"].passed
    assert findings["same_data"].measured == "evaluated again"
    assert findings["same_data"].details["same"] is False
    assert findings["not_worse"].details["images"] == 12
    # MVTec's split fixes the test images, so the scores have to be those of the evaluation.
    summary = contenders["first"].evidence.summary
    value = summary.estimate("test").value
    assert findings["not_worse"].details["candidate"] == pytest.approx(value)


def test_images_that_one_of_them_has_learned_from_are_left_out(
    contenders: dict[str, PackedModel], runs: Any
) -> None:
    samples = load_dataset(runs.data).samples
    assert len(samples) == 26
    found_again = evaluate_again(contenders["first"], contenders["elsewhere"], samples)
    learned = contenders["first"].evidence.learned()
    assert len(learned) == 14
    assert len(found_again.first) == 12
    assert "14 are left out" in found_again.how or "14 were learned from" in found_again.how
    with pytest.raises(RegistryError, match="neither model has learned from"):
        evaluate_again(
            contenders["first"],
            contenders["elsewhere"],
            [sample for sample in samples if sample.subset == "train"],
        )


def test_data_that_cannot_be_compared_is_refused(contenders: dict[str, PackedModel], tmp_path: Path) -> None:
    """The candidate's test images are gone, and no others are given."""
    folder = tmp_path / "moved"
    shutil.copytree(contenders["first"].folder, folder)
    contents = folder / "artifacts" / "evidence" / "contents.json"
    write_json(contents, dict.fromkeys(read_json(contents), "0" * 64))
    findings = found(Case(PackedModel("moved", folder), contenders["elsewhere"], QUICK))
    assert findings["same_data"].passed is False
    assert findings["not_worse"].passed is False
    assert "not evaluated again" in findings["same_data"].sentence


def test_what_a_version_brings_along(registry: Registry, tmp_path: Path) -> None:
    contender = PackedModel.of(registry, registry.version("parts", "2"), tmp_path)
    assert contender.evidence.evaluated
    assert len(contender.evidence.references) == 6
    assert len(contender.evidence.side("validation").good.paths) == 3
    foreign = replace(registry.version("parts", "2"), number="9")
    with pytest.raises(RegistryError):
        PackedModel.of(registry, foreign, tmp_path / "none")
