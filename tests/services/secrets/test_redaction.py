import json

from xsam.services.secrets.redaction import Redaction


def test_redaction__takes_every_value_out_of_a_text() -> None:
    hide = Redaction(["first-value", "second-value"])
    assert hide("first-value, second-value; first-value") == "***, ***; ***"
    assert hide("first-valu") == "first-valu"


def test_redaction__leaves_nothing_of_a_value_that_holds_another_one() -> None:
    assert Redaction(["12345678", "12345678-and-more"])("key=12345678-and-more") == "key=***"


def test_redaction__knows_how_python_and_json_write_a_value() -> None:
    value = "back\\slash\"and'quotes"
    hide = Redaction([value])
    for text in (value, repr(value), json.dumps({"key": value}), f"KeyError({value!r})"):
        assert "slash" not in hide(text), text


def test_redaction_of_nothing__is_false_and_changes_nothing() -> None:
    assert not Redaction()
    assert Redaction()("a text") == "a text"
    assert Redaction(["a-value-of-its-own"])
