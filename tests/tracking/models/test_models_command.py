"""``nfbmr models`` on the command line: what people and programs are told."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlflow_server.registry.registering import register
from mlflow_server.registry.registry import Registry
from nfbmr.cli.main import main
from tests.summaries import sweep_summary

WITHOUT_PROCESS = ["--gate", "reproduces=off", "--gate", "latency=off"]
LAX = [*WITHOUT_PROCESS, "--gate", "false_rejects=1", "--gate", "not_worse=1"]


@pytest.fixture
def nfbmr(
    stock: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs a command of ``nfbmr models`` on a registry with three versions; gives code and JSON."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stock)

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["models", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def told(
    stock: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """The same for people; gives code, output and what was said besides."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stock)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["models", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_from_two_versions_to_a_champion_and_back(nfbmr: Callable[..., Any], registry: Registry) -> None:
    code, first = nfbmr("promote", "parts", "1", *LAX)
    assert (code, first["moved"], first["before"], first["after"]) == (0, True, None, "1")
    code, second = nfbmr("promote", "parts", "2", *LAX, "--reason", "trained longer")
    assert (code, second["before"], second["after"]) == (0, "1", "2")
    assert {gate["gate"]: gate["passed"] for gate in second["gates"]} == {
        "reproduces": None,
        "same_data": True,
        "not_worse": True,
        "not_peeked": True,
        "no_leak": True,
        "false_rejects": True,
        "latency": None,
        "size": True,
    }
    code, refused = nfbmr("promote", "parts", "3", *LAX, "--gate", "size=1")
    assert (code, refused["moved"]) == (2, False)
    assert refused["error"]["type"] == "GateError"
    assert "refused by size" in refused["error"]["what"]
    assert registry.model("parts").aliases == {"champion": "2"}
    code, forced = nfbmr(
        "promote", "parts", "3", *LAX, "--gate", "size=1", "--force", "--reason", "a new disk"
    )
    assert (code, forced["moved"], forced["forced"]) == (0, True, True)
    code, back = nfbmr("rollback", "parts", "--reason", "line 3 complains")
    assert (code, back["before"], back["after"]) == (0, "3", "2")
    code, past = nfbmr("history", "parts")
    assert [entry["action"] for entry in past["entries"]] == ["promote", "promote", "promote", "rollback"]
    assert [entry["reason"] for entry in past["entries"]] == [
        "",
        "trained longer",
        "a new disk",
        "line 3 complains",
    ]
    assert [entry["forced"] for entry in past["entries"]] == [False, False, True, False]
    assert (past["current"], past["champions"]) == ("2", ["1", "2"])


def test_what_people_read(told: Callable[..., Any]) -> None:
    code, out, _ = told("promote", "parts", "1", *LAX)
    assert code == 0
    assert "parts: champion now points to version 1, before to nothing" in out
    assert "off      latency" in out
    code, out, err = told("promote", "parts", "2", *WITHOUT_PROCESS)
    assert code == 2
    assert "REFUSED  false_rejects" in out
    assert "champion stays at version 1" in out
    assert "refused by" in err
    assert "--force --reason TEXT" in err
    code, out, _ = told("promote", "parts", "2", *LAX, "--dry-run")
    assert (code, "would move from version 1 to version 2 (--dry-run)" in out) == (0, True)
    code, out, _ = told("history", "parts")
    assert "promote" in out
    assert "turned off: reproduces, latency" in out
    code, out, _ = told("list")
    assert out.strip() == "parts  3 versions, champion is 1"
    code, out, _ = told("show", "parts")
    assert "version 1  nf-bmr, image AUROC 0." in out
    assert "<- champion" in out
    code, out, _ = told("history", "parts", "--alias", "candidate")
    assert "has not been moved yet" in out


def test_shown_and_listed(nfbmr: Callable[..., Any], runs: Any) -> None:
    code, listed = nfbmr("list")
    assert (code, listed["models"]) == (0, [{"name": "parts", "aliases": {}, "versions": 3, "latest": "3"}])
    code, shown = nfbmr("show", "parts")
    assert [version["version"] for version in shown["versions"]] == ["1", "2", "3"]
    first = shown["versions"][0]
    summary = json.loads((runs.first / "summary.json").read_text())
    assert first["run"] == summary["run_id"]
    assert first["image_auroc"]["value"] == pytest.approx(
        summary["metrics"]["test"]["image_auroc"]["value"], abs=1e-4
    )
    assert first["split_digest"] == summary["split_digest"] != shown["versions"][2]["split_digest"]
    assert first["method"] == "nf-bmr"
    assert first["test_peeked"] is False


def test_registering_twice_gives_one_version(nfbmr: Callable[..., Any], runs: Any) -> None:
    code, again = nfbmr("register", str(runs.second), "--name", "parts")
    assert (code, again["version"], again["new"]) == (0, "2", False)
    code, other = nfbmr("register", str(runs.second), "--name", "other-parts")
    assert (code, other["version"], other["new"]) == (0, "1", True)
    by_name = json.loads((runs.first / "run.json").read_text())["run_id"]
    code, known = nfbmr("register", by_name, "--name", "parts")
    assert (code, known["version"], known["new"]) == (0, "1", False)


def test_a_sweep_is_registered_by_the_trial_that_it_chose(
    nfbmr: Callable[..., Any], runs: Any, tmp_path: Path
) -> None:
    run = json.loads((runs.first / "summary.json").read_text())
    chosen = {
        "number": 3,
        "params": {"flow.blocks": 4},
        "values": {"validation/image_auroc": 0.9},
        "run_id": run["run_id"],
        "run_dir": str(runs.first),
        "validation": {},
    }
    sweep_summary(best=chosen).write(tmp_path / "summary.json")
    code, known = nfbmr("register", str(tmp_path), "--name", "parts")
    assert (code, known["version"], known["new"]) == (0, "1", False)


def test_of_several_who_register_a_run_at_once_one_made_the_version(stock: str, runs: Any) -> None:
    run = json.loads((runs.first / "run.json").read_text())["run_id"]
    register(run, "raced", uri=stock)  # the registered model is there; the runs to come are not in it
    run = json.loads((runs.second / "run.json").read_text())["run_id"]
    barrier = threading.Barrier(4)
    registrations = []

    def contend() -> None:
        barrier.wait(60)
        registrations.append(register(run, "raced", uri=stock))

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registrations) == 4
    assert {str(registration.version) for registration in registrations} == {"raced/2"}
    assert sum(registration.is_new for registration in registrations) == 1


def test_a_small_version_beside_a_whole_one(nfbmr: Callable[..., Any], runs: Any) -> None:
    code, small = nfbmr("register", str(runs.first), "--name", "parts", "--backbone", "referenced")
    assert (code, small["version"], small["new"]) == (0, "4", True)
    code, shown = nfbmr("show", "parts")
    assert [version["backbone"] for version in shown["versions"]] == ["included"] * 3 + ["referenced"]


def test_two_side_by_side(nfbmr: Callable[..., Any], told: Callable[..., Any], runs: Any) -> None:
    code, answer = nfbmr("compare", "parts/1", "parts/2")
    assert (code, answer["images"]) == (0, 12)
    assert set(answer["metrics"]) == {
        "image_auroc",
        "image_ap",
        "image_f1",
        "image_precision",
        "image_recall",
    }
    line = answer["metrics"]["image_auroc"]
    assert line["difference"]["value"] == pytest.approx(line["first"] - line["second"])
    assert answer["settings"] == {"seed": {"first": 0, "second": 1}}
    code, same = nfbmr("compare", str(runs.first), "parts/1")
    assert same["metrics"]["image_auroc"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    code, out, _ = told("compare", "parts/1", "parts/3")
    assert "both evaluated again on 12 images" in out
    assert "data.seed" in out


def test_a_check_of_new_good_parts(nfbmr: Callable[..., Any], runs: Any, tmp_path: Path) -> None:
    good = tmp_path / "new"
    good.mkdir()
    for number in range(4):
        for path in (runs.data / "train" / "good").glob("*.png"):
            shutil.copyfile(path, good / f"{number}-{path.name}")
    (good / "broken.png").write_bytes(b"no image")
    code, answer = nfbmr("check", "parts", "--version", "1", "--images", str(good))
    assert answer["new"]["images"] == 56
    assert answer["validation"]["images"] == 3
    assert list(answer["unreadable"]) == [str(good / "broken.png")]
    assert code == (0 if answer["holds"] else 1)
    bad = tmp_path / "bad"
    bad.mkdir()
    for path in (runs.data / "train" / "good").glob("*.png"):  # as if the lamp were another
        Image.fromarray(255 - np.asarray(Image.open(path))).save(bad / path.name)
    code, answer = nfbmr("check", "parts", "--version", "1", "--images", str(bad))
    assert code == 1
    assert answer["sentence"].startswith("The threshold no longer holds")


@pytest.mark.slow
def test_all_gates_as_they_are(nfbmr: Callable[..., Any]) -> None:
    code, first = nfbmr("promote", "parts", "1", "--gate", "false_rejects=1")
    assert code == 0
    assert all(gate["passed"] for gate in first["gates"])
    assert first["gates"][0]["details"]["images"] == 6
    code, again = nfbmr("promote", "parts", "1")
    assert (code, again["error"]["type"]) == (2, "RegistryError")
    assert "champion already" in again["error"]["what"]


def test_gates_are_printed_as_a_file(
    nfbmr: Callable[..., Any], told: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "gates.yaml"
    file.write_text(told("gates", "--gate", "latency=50")[1])
    code, settings = nfbmr("gates", "--gates", str(file))
    assert (code, settings["latency"], settings["same_data"]) == (0, 50, "on")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["show", "part"], "did you mean parts"),
        (["promote", "parts", "7"], "versions are 1, 2, 3"),
        (["promote", "parts", "1", "--gate", "latencey=5"], "did you mean latency"),
        (["promote", "parts", "1", "--force"], "--force needs --reason"),
        (["rollback", "parts"], "no earlier champion"),
        (["check", "parts", "--images", "."], "no version is the champion"),
        (["check", "parts", "--version", "1", "--images", "nowhere"], "no such file or folder"),
        (["compare", "parts/x", "parts/1"], "NAME/3, or a folder"),
        (["compare", "parts@champion", "parts/1"], "no version is the champion"),
        (["register", "no-such-run", "--name", "parts"], "neither the folder of a run nor"),
    ],
)
def test_mistakes_are_told_with_what_to_do(
    nfbmr: Callable[..., Any], arguments: list[str], what: str
) -> None:
    code, answer = nfbmr(*arguments)
    assert code == 2
    error = answer["error"]
    assert what in f"{error['what']} {error['fix']}"


def test_a_name_that_cannot_be_one(nfbmr: Callable[..., Any], runs: Any) -> None:
    code, answer = nfbmr("register", str(runs.first), "--name", "a/b")
    assert (code, answer["error"]["what"]) == (2, "not a name for a model")


def test_a_run_that_is_not_finished(nfbmr: Callable[..., Any], runs: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.first, run)
    (run / "summary.json").unlink()
    code, answer = nfbmr("register", str(run), "--name", "parts")
    assert (code, answer["error"]["what"]) == (2, "the run is not finished")
    assert "--resume" in answer["error"]["fix"]


def test_a_run_that_was_not_recorded(nfbmr: Callable[..., Any], runs: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.first, run, ignore=shutil.ignore_patterns("tracking"))
    code, answer = nfbmr("register", str(run), "--name", "parts")
    assert code == 2
    assert "was not recorded" in answer["error"]["what"]


def test_a_server_that_is_down(nfbmr: Callable[..., Any], free_port: int, runs: Any) -> None:
    uri = f"http://127.0.0.1:{free_port}"
    for arguments in (["list"], ["promote", "parts", "1"], ["register", str(runs.first), "--name", "parts"]):
        code, answer = nfbmr(*arguments, "--uri", uri)
        assert (code, answer["error"]["type"]) == (2, "RegistryError")
        assert uri in answer["error"]["where"]


def test_images_are_scored_with_a_model_by_name(
    nfbmr: Callable[..., Any], runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((runs.data / "test").rglob("*.png"))
    assert nfbmr("promote", "parts", "2", *LAX)[0] == 0
    scores: dict[str, float] = {}
    for model in (
        str(runs.second),
        "parts",
        "parts@champion",
        "parts/2",
        "models:/parts@champion",
        "parts/1",
    ):
        capsys.readouterr()
        out = tmp_path / str(len(scores))
        assert main(["predict", model, str(image), "--out", str(out), "--no-heatmaps", "--json"]) == 0
        scores[model] = json.loads(capsys.readouterr().out)["predictions"][0]["score"]
    assert len({scores[model] for model in list(scores)[:5]}) == 1
    assert scores["parts/1"] != scores["parts/2"]
    for model in ("part", "parts/7", "parts@challenger", "runs/nowhere/at-all"):
        capsys.readouterr()
        assert main(["predict", model, str(image), "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["fix"]


def test_exported_files_go_along_with_the_model_they_were_made_of(
    runs: Any, tiny: Callable[..., Any], nfbmr: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    from nfbmr.api import train
    from nfbmr.export.export_model import export_model

    run = train(tiny(features__compute="fp32", train__flow__epochs=1, train__mapping__epochs=1))["run_dir"]
    folder = export_model(Path(run), tmp_path / "line-7", limit=3).folder
    code, printed = nfbmr("register", str(run), "--name", "leaving", "--export", str(folder))
    assert (code, printed["version"], printed["new"]) == (0, "1", True)
    (version,) = registry.versions("leaving")
    place = registry.download(version, tmp_path / "fetched")
    for name in ("model.onnx", "model.json"):
        assert (place / "exports" / "onnx" / name).read_bytes() == (folder / name).read_bytes()
    code, told = nfbmr("register", str(runs.second), "--name", "leaving", "--export", str(folder))
    assert code == 2
    assert "another model" in told["error"]["what"]
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"changed")
    code, told = nfbmr("register", str(run), "--name", "leaving", "--export", str(folder))
    assert code == 2
    assert "was changed" in told["error"]["what"]
