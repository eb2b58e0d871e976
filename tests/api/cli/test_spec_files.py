import tracemalloc
from pathlib import Path

import pytest

from xsam.api.cli.options import CommandError
from xsam.api.cli.spec_files import load


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def test_load__reads_yaml_and_json(path: Path) -> None:
    path.write_text("name: 2026-03-01\nlabels:\n  run: '7'\n")
    assert load(str(path)) == {"name": "2026-03-01", "labels": {"run": "7"}}
    path.write_text('{"epochs": 3}')
    assert load(str(path)) == {"epochs": 3}


def test_load__an_empty_file_is_a_job_of_defaults(path: Path) -> None:
    path.write_text("# all defaults\n")
    assert load(str(path)) == {}
    assert load(str(path), ["optimizer.variant=sgd"]) == {"optimizer": {"variant": "sgd"}}


def test_set__values_are_yaml(path: Path) -> None:
    path.write_text("dataset: {name: digits, augment: [flip]}")
    spec = load(str(path), ["dataset.augment=[crop, flip]", "epochs=3", "name=a=b", "dataset.train_size="])
    assert spec == {
        "dataset": {"name": "digits", "augment": ["crop", "flip"], "train_size": None},
        "epochs": 3,
        "name": "a=b",
    }


@pytest.mark.parametrize("override", ["epochs", "=3", ".epochs=3", "optimizer..rho=1", "epochs=[1"])
def test_set__refuses_what_is_no_assignment(path: Path, override: str) -> None:
    path.write_text("epochs: 1")
    with pytest.raises(CommandError, match="--set"):
        load(str(path), [override])


def test_set__refuses_a_field_below_a_value(path: Path) -> None:
    path.write_text("epochs: 1")
    with pytest.raises(CommandError, match="epochs is 1 in the file, which has no fields"):
        load(str(path), ["epochs.max=3"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1", r"line 1, column 6: not valid YAML"),
        ("a: b: c", r"line 1, column 5"),
        ("- a", "holds a list"),
        ("just words", "holds a str"),
        ("rho: .nan", "JSON can't carry"),
        ("x: !!binary aGk=", "JSON can't carry"),
        ("a: &a [*a]", "an alias to what it is itself a part of"),
        ("!!python/object:os.system {}", "not valid YAML"),
        ("[" * 5000, "nested too deeply|not valid YAML"),
    ],
)
def test_load__says_what_is_wrong_and_where(path: Path, text: str, sentence: str) -> None:
    path.write_text(text)
    with pytest.raises(CommandError, match=sentence):
        load(str(path))


def test_load__says_what_file_it_could_not_read(path: Path) -> None:
    with pytest.raises(CommandError, match=r"can't read .*job\.yaml: No such file"):
        load(str(path))
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CommandError, match="not text in UTF-8"):
        load(str(path))


def _bomb(reference: str) -> str:
    levels = [f"l{n}: &l{n} {reference.format(', '.join([f'*l{n - 1}'] * 9))}" for n in range(1, 10)]
    return "\n".join(["l0: &l0 {a: 1}", *levels])


@pytest.mark.parametrize(
    ("reference", "sentence"), [("[{}]", "holds more than 100,000 values"), ("{{<<: [{}]}}", "too many merged")]
)
def test_load__refuses_what_aliases_blow_up_before_it_takes_the_memory(
    path: Path, reference: str, sentence: str
) -> None:
    path.write_text(_bomb(reference))
    tracemalloc.start()
    try:
        with pytest.raises(CommandError, match=sentence):
            load(str(path))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_load__takes_aliases_that_are_few(path: Path) -> None:
    path.write_text("base: &b {lr: 0.1}\noptimizer: {base: *b}\nother: {<<: *b}")
    assert load(str(path))["other"] == {"lr": 0.1}


def test_load__refuses_a_file_that_no_service_would_take(path: Path) -> None:
    path.write_text("a: " + "x" * 1_000_000)
    with pytest.raises(CommandError, match=r"longer than the 1,000,000 characters"):
        load(str(path))
