"""A process that becomes a team's user, tried in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xsam.workers.isolation.team_user import IsolationError, require_reach, require_rights

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="not available: only root can become another user")
USER = 61_001
_BECOME = """if True:
    import json, os, sys, tempfile, threading
    from pathlib import Path
    from xsam.workers.isolation.team_user import IsolationError, become
    is_done = threading.Event()
    threading.Thread(target=is_done.wait, daemon=True).start()
    user, home = int(sys.argv[1]), Path(sys.argv[2])
    try:
        become(user, home)
        second = "no error"
        become(user, home)
    except IsolationError as e:
        second = str(e)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "threads": sorted({path.stat().st_uid for path in Path("/proc/self/task").iterdir()}),
        "no new privileges": status["NoNewPrivs"].strip(), "rights": int(status["CapPrm"], 16),
        "environ": len(Path("/proc/self/environ").read_bytes()) > 0,
        "temporary": tempfile.gettempdir(), "home": str(Path.home()), "cwd": os.getcwd(), "second": second,
    }))
"""


@needs_root
def test_become__leaves_no_thread_no_right_and_no_way_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, USER, USER)
    for folder in (tmp_path, *tmp_path.parents[:3]):  # one more beside other test processes
        folder.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-c", _BECOME, str(USER), str(home)], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout or "{}")
    assert found, done.stderr
    assert found["ids"] == [[USER] * 3, [USER] * 3, [USER]]
    assert (found["threads"], found["no new privileges"], found["rights"]) == ([USER], "1", 0)
    assert found["environ"], "debuggers and ranks of one run may look into it again"
    assert (found["home"], found["cwd"], found["temporary"]) == (str(home), str(home), str(home / "tmp"))
    assert "lack CAP_CHOWN" in found["second"]


@needs_root
def test_rights__that_are_missing_are_named_with_the_setting() -> None:
    code = "import os; from xsam.workers.isolation.team_user import require_rights; os.setuid(61001); require_rights()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "XSAM_ISOLATION__FIRST_USER_ID is set, but Ray's processes on" in done.stderr
    assert "lack CAP_CHOWN, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID; start Ray there as root" in done.stderr


def test_folder_out_of_reach__is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(IsolationError, match=f"can't write to {missing} .*chmod"):
        require_reach(USER, write=[missing])
    require_reach(USER, read=[tmp_path])
    if IS_ROOT:
        require_rights()
