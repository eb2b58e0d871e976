import logging
import sys
import warnings
from pathlib import Path

import pytest

from xsam.services.artifacts.logs import read_lines
from xsam.services.secrets.redaction import Redaction
from xsam.workers.rank.log_capture import captured_output

VALUE = "wandb-0123456789"


def _say() -> None:
    print("key:", VALUE)
    sys.stdout.write(f"in two {VALUE[:5]}")
    sys.stdout.write(f"{VALUE[5:]} parts\n")
    print(VALUE, file=sys.stderr)
    logging.getLogger("team").info("logged %s", VALUE)


def test_captured_output__has_no_secret_however_it_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with captured_output(tmp_path, 0, Redaction([VALUE])) as output:
        _say()
        with warnings.catch_warnings(action="always"):
            warnings.warn(VALUE, stacklevel=1)
        output.write(f"Traceback: {VALUE}")
        output.write("x" * 8185 + VALUE)  # a line is cut after the value is gone, not in its middle
    texts = [line.text for line in read_lines(tmp_path)]
    assert texts[:4] == ["key: ***", "in two *** parts", "***", "INFO team: logged ***"]
    assert "Traceback: ***" in texts
    assert VALUE[:7] not in "".join(texts)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", ""), "Ray would write it to a file of its own"


def test_captured_output__of_a_run_without_secrets_is_passed_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with captured_output(tmp_path, 0, Redaction()):
        _say()
    assert f"key: {VALUE}" in [line.text for line in read_lines(tmp_path)]
    assert f"key: {VALUE}" in capsys.readouterr().out
