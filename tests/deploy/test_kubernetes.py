"""The Kubernetes manifests and the systemd units: valid by their schemas, and true of this service."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support import programs
from tests.support.setting_names import is_setting
from xsam.api.app import create_app
from xsam.services.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = DEPLOY / "kubernetes"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
KUBERNETES = "1.31"


def documents() -> dict[str, dict[str, Any]]:
    """Return every document by file, kind and name."""
    found = {}
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            name = document.get("metadata", {}).get("name", "")
            found[f"{path.name} {document['kind']} {name}".strip()] = document
    return found


DOCUMENTS = documents()
(KUSTOMIZATION,) = (d for d in DOCUMENTS.values() if d["kind"] == "Kustomization")
CLUSTERS = [d for d in DOCUMENTS.values() if d["kind"] == "RayCluster"]


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every pod template, those of the operator's kind too, whose own schema is not at hand."""
    for name, document in DOCUMENTS.items():
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield name, document["spec"]["template"]
        elif document["kind"] == "RayCluster":
            spec = document["spec"]
            for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
                yield f"{name} {group.get('groupName', 'head')}", group["template"]


TEMPLATES = dict(templates())
CONTAINERS = {f"{name} {c['name']}": c for name, pod in TEMPLATES.items() for c in pod["spec"]["containers"]}


@pytest.mark.parametrize("name", [n for n, d in DOCUMENTS.items() if d["kind"] not in {"Kustomization", "RayCluster"}])
def test_document__is_what_kubernetes_takes(name: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], KUBERNETES, strict=True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_pod__is_what_kubernetes_takes(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **TEMPLATES[name]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_kustomization__names_files_and_images_that_there_are() -> None:
    assert all((MANIFESTS / resource).exists() for resource in KUSTOMIZATION["resources"])
    assert {c["image"] for c in CONTAINERS.values()} == {image["name"] for image in KUSTOMIZATION["images"]}


@pytest.mark.parametrize("name", CONTAINERS)
def test_container__names_settings_secrets_and_volumes_that_there_are(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    container = CONTAINERS[name]
    (secret,) = (d for d in DOCUMENTS.values() if d["kind"] == "Secret")
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is not None:
            assert reference["name"] == secret["metadata"]["name"]
        value = variable["value"] if reference is None else secret["stringData"][reference["key"]]
        monkeypatch.setenv(variable["name"], value)
    (pod,) = (pod for known, pod in TEMPLATES.items() if name.startswith(f"{known} "))
    assert {m["name"] for m in container["volumeMounts"]} <= {v["name"] for v in pod["spec"]["volumes"]}
    Settings()  # takes their values
    ours = [variable["name"] for variable in container["env"] if variable["name"].startswith("XSAM_")]
    assert [named for named in ours if not is_setting(named)] == []


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name.rsplit(" ", 1)[1].startswith("ray")])
def test_ray__is_started_without_the_database_s_address(name: str) -> None:
    """What a Ray process inherits, its ranks can read."""
    assert not any("DATABASE" in variable["name"] for variable in CONTAINERS[name]["env"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_container__has_no_privileges(name: str) -> None:
    container = CONTAINERS[name]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (pod,) = (pod for known, pod in TEMPLATES.items() if name.startswith(f"{known} "))
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_probes__ask_routes_that_there_are(tmp_path: Path) -> None:
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    asked = [
        p["httpGet"]["path"]
        for c in CONTAINERS.values()
        for k, p in c.items()
        if k.endswith("Probe") and "httpGet" in p
    ]
    assert asked
    assert set(asked) <= set(paths)


def test_policies_and_services__select_pods_that_there_are() -> None:
    labels = [pod["metadata"]["labels"].items() for pod in TEMPLATES.values()]
    for name, document in DOCUMENTS.items():
        spec = document.get("spec", {})
        wanted = {
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "Service": lambda spec: spec["selector"],
        }.get(document["kind"])
        if wanted is not None:
            assert any(wanted(spec).items() <= known for known in labels), name


def test_both_ways_to_run_ray__reach_the_same_pods_by_network_policy() -> None:
    nodes = [pod for name, pod in TEMPLATES.items() if not name.startswith("api.yaml")]
    assert all(pod["metadata"]["labels"]["xsam-ray"] == "node" for pod in nodes)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_unit__is_what_systemd_takes(unit: Path, tmp_path: Path) -> None:
    analyze = programs.find("systemd-analyze", package="systemd")
    text = unit.read_text().replace("/opt/xsam/bin/", "/bin/").replace("/bin/xsam", "/bin/true")
    text = text.replace("/bin/python", "/bin/true").replace("/bin/ray", "/bin/true").replace("User=xsam", "User=root")
    for other in UNITS:  # what a unit is ordered after must be found
        (tmp_path / other.name).write_text(other.read_text())
    (tmp_path / unit.name).write_text(text)
    found = subprocess.run(
        [analyze, "verify", "--man=no", f"./{unit.name}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    ours = [line for line in found.stderr.splitlines() if unit.name in line]
    assert ours == []


def test_environment_of_ray__names_no_database() -> None:
    assert "DATABASE" not in (DEPLOY / "systemd" / "ray.env.example").read_text()
    for name in ("ray-head.service", "ray-worker.service"):
        assert "xsam.env" not in (DEPLOY / "systemd" / name).read_text()
