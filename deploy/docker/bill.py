"""Print a bill of materials of an image, as CycloneDX JSON: what is installed from Debian's packages and as Python's.

`python3 bill.py NAME` looks at the system that it runs in; `python3 bill.py NAME FOLDER` at an unpacked one without
Python's packages, of which FOLDER has `var/lib/dpkg/status` and `usr/lib/os-release`. The same packages give the same
bytes.
"""

import importlib.metadata
import json
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

SPECIFICATION = "1.6"
_NAMESPACE = uuid.UUID("f1e2f6b0-6a55-5d6c-9d0c-9f4f4e0a6a35")
"""Of the serial numbers: any other would do, always the same one."""


def bill(name: str, root: Path = Path("/"), *, has_python: bool = True) -> dict[str, Any]:
    """Return the document.

    Args:
        name: of the image.
        root: where the system's packages are noted.
        has_python: whether the packages of the running Python are the image's.
    """
    components = [*_of_debian(root), *(_of_python() if has_python else ())]
    unique = {component["bom-ref"]: component for component in components}
    listed = [unique[reference] for reference in sorted(unique)]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, json.dumps([name, listed]))}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "bom-ref": name}},
        "components": listed,
    }


def _of_debian(root: Path) -> Iterator[dict[str, Any]]:
    status = root / "var/lib/dpkg/status"
    if not status.exists():
        return
    system = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (root / "usr/lib/os-release").read_text(), re.M))
    distribution, release = system["ID"], system.get("VERSION_ID", "")
    for paragraph in status.read_text().split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.M))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            kind = f"?arch={fields['Architecture']}&distro={distribution}-{release}"
            yield _component(name, version, f"pkg:deb/{distribution}/{quote(name)}@{_quoted(version)}{kind}")


def _of_python() -> Iterator[dict[str, Any]]:
    for installed in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", installed.metadata["Name"]).lower()
        licence = installed.metadata.get("License-Expression")
        licences = {"licenses": [{"expression": licence}]} if licence else {}
        purl = f"pkg:pypi/{quote(name)}@{_quoted(installed.version)}"
        yield _component(name, installed.version, purl) | licences


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _quoted(version: str) -> str:
    return quote(version, safe=":")


if __name__ == "__main__":
    image, *folders = sys.argv[1:]
    found = bill(image, Path(folders[0]), has_python=False) if folders else bill(image)
    json.dump(found, sys.stdout, indent=1)
