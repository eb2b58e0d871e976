"""The compose file, the Dockerfile, the script that makes bases and the documents agree; no container is run here."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from tests.deploy.containers import DEBIAN, OURS, REGISTRY, SERVICES
from tests.support.setting_names import is_setting
from xsam.services import process

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
INSTALL = (ROOT / "deploy/docs/install.md").read_text()
EXAMPLE = (ROOT / "deploy/.env.example").read_text()
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*)|:\?[^}]*)\}")


def test_variables__stand_in_the_example_with_their_defaults() -> None:
    found = dict(_VARIABLE.findall(COMPOSE_TEXT))
    assert len(re.findall(r"\$\{\w+", COMPOSE_TEXT)) == len(_VARIABLE.findall(COMPOSE_TEXT))
    required = dict(re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.M))
    optional = dict(re.findall(r"^#(\w+)=(.*)$", EXAMPLE, re.M))
    assert set(required) == {name for name, default in found.items() if not default and name in required}
    assert set(required) | set(optional) == set(found)
    assert optional == {name: found[name] for name in optional}


def test_variable__has_one_default_wherever_it_stands() -> None:
    assert len(set(_VARIABLE.findall(COMPOSE_TEXT))) == len({name for name, _ in _VARIABLE.findall(COMPOSE_TEXT)})


@pytest.mark.parametrize("service", ["api", "ray-head", "ray-worker"])
def test_service__of_ours_is_confined_and_names_settings_that_there_are(service: str) -> None:
    found = COMPOSE["services"][service]
    assert found["build"]["target"] in re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.M)
    assert (found["cap_drop"], found["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert re.search(rf"AS {found['build']['target']}\n(?:(?!FROM ).*\n)*?USER xsam\n", DOCKERFILE)
    ours = [name for name in found["environment"] if name.startswith("XSAM_")]
    assert [name for name in ours if not is_setting(name)] == []


@pytest.mark.parametrize("service", ["ray-head", "ray-worker"])
def test_ray__begins_as_root_and_keeps_what_it_takes_to_give_teams_users_of_their_own(service: str) -> None:
    found = COMPOSE["services"][service]
    (begin,) = found["entrypoint"]
    script = (DOCKER / Path(begin).name).read_text()
    assert Path(begin).name in DOCKERFILE
    assert {f"CAP_{name}" for name in found["cap_add"]} == set(process.RIGHTS) | {"CAP_DAC_OVERRIDE"}
    assert {f"+{name.lower()}" for name in found["cap_add"]} == set(re.findall(r"\+\w+", script))
    assert "--reuid=xsam --regid=xsam" in script


def test_ray_workers__are_started_without_the_database_s_address() -> None:
    assert not any("DATABASE" in name for name in COMPOSE["services"]["ray-worker"]["environment"])


@pytest.mark.parametrize("service", SERVICES)
def test_service__writes_to_volumes_alone_comes_back_and_is_open_to_this_host_alone(service: str) -> None:
    found = COMPOSE["services"][service]
    assert found["read_only"] is True
    assert found["restart"] == "unless-stopped"
    volumes = [volume.split(":")[0] for volume in found.get("volumes", []) if not volume.startswith(("/", "."))]
    assert set(volumes) <= set(COMPOSE["volumes"])
    published = [_VARIABLE.sub(r"\2", port) for port in found.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_deploy_test__kills_every_service_of_the_compose_file() -> None:
    assert set(SERVICES) == set(COMPOSE["services"])


def test_proxy__has_the_address_that_the_api_believes() -> None:
    (trusted,) = [
        name for name, _ in _VARIABLE.findall(COMPOSE["services"]["api"]["environment"]["FORWARDED_ALLOW_IPS"])
    ]
    assert trusted in COMPOSE["services"]["proxy"]["networks"]["default"]["ipv4_address"]


def test_images__are_those_that_the_script_makes_and_the_document_names() -> None:
    made = set(re.findall(r"(xsam-\w+:[\d.]+)", (DOCKER / "debian.sh").read_text()))
    assert {image.removeprefix("localhost/") for _, image in DEBIAN.values()} <= made
    assert REGISTRY["BASE"] in DOCKERFILE
    assert {REGISTRY["POSTGRES_IMAGE"], REGISTRY["PROXY_IMAGE"]} <= set(dict(_VARIABLE.findall(COMPOSE_TEXT)).values())
    images = {variable: image for variable, (_, image) in [*DEBIAN.items(), *OURS.items()]}
    assert f"BASE={images.pop('BASE')}" in INSTALL
    assert [line for line in (f"{name}={image}" for name, image in images.items()) if line not in INSTALL] == []


def test_build_arguments__of_the_document_are_the_dockerfile_s() -> None:
    named = set(re.findall(r"--build-arg (\w+)=", INSTALL + (ROOT / "README.md").read_text()))
    assert "BASE" in named
    for target in ("api", "worker"):
        stage = DOCKERFILE.split(f"AS {target}\n")[1].split("\nFROM ")[0]
        assert named - {"BASE"} <= set(re.findall(r"^ARG (\w+)$", stage, re.M))


def test_bill_of_materials__is_what_cyclonedx_takes_and_names_what_is_installed() -> None:
    def printed() -> str:
        command = [sys.executable, str(DOCKER / "bill.py"), "here"]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout

    bill = printed()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    purls = [component["purl"] for component in yaml.safe_load(bill)["components"]]
    assert [purl for purl in purls if PackageURL.from_string(purl).to_string() != purl] == []
    assert any(purl.startswith("pkg:pypi/ray@") for purl in purls)
    assert bill == printed()


def test_bill_of_materials__of_an_unpacked_system_has_its_packages(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u1\n\n"
        "Package: caddy\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.6.2\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    command = [sys.executable, str(DOCKER / "bill.py"), "caddy", str(tmp_path)]
    bill = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    assert [component["purl"] for component in yaml.safe_load(bill)["components"]] == [
        "pkg:deb/debian/caddy@1:2.6.2?arch=amd64&distro=debian-12",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12",
    ]
