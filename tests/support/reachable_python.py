"""A Python that other users of this machine can run as well."""

import subprocess
import sys
from pathlib import Path


def reachable_python(folder: Path) -> Path:
    """Return the Python that runs this, or a script that starts it so that others reach it.

    Where it lies in root's own folder, what the script starts sees a file system in which that folder holds nothing
    else and lets others through.

    Args:
        folder: for the script; it must be there.

    Raises:
        PermissionError: others don't reach it, and file systems can't be mounted.
    """
    base = Path(sys.base_prefix)
    closed = [path for path in base.parents if not path.stat().st_mode & 0o001]
    if not closed:
        return Path(sys.executable)
    own, aside, script = closed[-1], folder / "aside", folder / "python"
    top = own / base.relative_to(own).parts[0]
    script.write_text(
        f"""#!/bin/sh
exec unshare --mount sh -c 'mkdir -p {aside} {top} && mount --rbind {top} {aside} &&
mount -t tmpfs -o mode=711 tmpfs {own} && mkdir {top} && mount --move {aside} {top} &&
exec {sys.executable} "$@"' python "$@"
"""
    )
    script.chmod(0o755)
    if subprocess.run([script, "-c", ""], check=False, capture_output=True).returncode != 0:
        raise PermissionError(f"{own} lets no other user through to Python, and file systems can't be mounted")
    return script
