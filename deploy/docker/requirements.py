"""Print what an extra of this project needs: images install that first, in a layer that changes rarely.

`python3 requirements.py service` reads the pyproject.toml of the working folder.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

_PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]


def _of(extra: str) -> Iterator[str]:
    for line in _PROJECT["optional-dependencies"][extra]:
        own = re.fullmatch(rf"{_PROJECT['name']}\[(.+)\]", line)
        if own is None:
            yield line
        else:
            for name in own[1].split(","):
                yield from _of(name)


sys.stdout.writelines(f"{line}\n" for line in _of(sys.argv[1]))
