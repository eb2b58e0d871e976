"""Templates and scripts hold nothing that would need a hole in the content security policy, or that skips escaping."""

import re
from pathlib import Path

import pytest

import xsam.api.dashboard.routes as dashboard

_FOLDER = Path(dashboard.__file__).parent
_TEMPLATES = sorted((_FOLDER / "templates").rglob("*.html"))
_SCRIPTS = sorted((_FOLDER / "static").rglob("*.js"))
_PYTHON = sorted(_FOLDER.rglob("*.py"))

_IN_TEMPLATES = {
    r"\|\s*safe\b": "text that is not escaped",
    r"\|\s*tojson\b": "data inside of a script",
    r"\{%-?\s*autoescape\s+false": "text that is not escaped",
    r"\sstyle\s*=": "inline style",
    r"<style\b": "inline style",
    r"\son[a-z]+\s*=": "inline script",
    r"<script\b(?![^>]*\bsrc=)[^>]*>": "inline script",
    r"javascript:": "inline script",
    r"(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//": "another host",
    r"target\s*=\s*[\"']?_blank": "a new window",
}
_IN_SCRIPTS = {
    r"\.(?:inner|outer)HTML\s*\+?=": "text that becomes HTML",
    r"insertAdjacentHTML|document\.write|createContextualFragment|setHTMLUnsafe|DOMParser": "text that becomes HTML",
    r"\beval\s*\(|new Function\b|setTimeout\(\s*[\"'`]": "text that becomes a script",
    r"\.style\.cssText|setAttribute\(\s*[\"'](?:style|on)": "inline style or script",
    r"https?://(?!www\.w3\.org/)": "another host",
    r"createPolicy\(": "a way around Trusted Types",
}
_ONE_FUNCTION = "http.js"
"""The only place that makes HTML of text: an answer of this service that says that it is a part of a page."""


@pytest.mark.parametrize("path", _TEMPLATES, ids=lambda path: path.name)
def test_templates__have_no_forbidden_construct(path: Path) -> None:
    assert _found(path.read_text(), _IN_TEMPLATES) == []


@pytest.mark.parametrize("path", _SCRIPTS, ids=lambda path: path.relative_to(_FOLDER / "static").as_posix())
def test_scripts__have_no_forbidden_construct(path: Path) -> None:
    if path.name == _ONE_FUNCTION:
        text = path.read_text()
        assert (text.count("innerHTML"), text.count("createPolicy(")) == (1, 1)
        return
    assert _found(path.read_text(), _IN_SCRIPTS) == []


@pytest.mark.parametrize("path", _PYTHON, ids=lambda path: path.name)
def test_python__never_marks_text_as_html(path: Path) -> None:
    assert not re.search(r"\bMarkup\b|autoescape=False", path.read_text())


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("{{ name|safe }}", _IN_TEMPLATES),
        ("<script>let a = {{ a|tojson }}</script>", _IN_TEMPLATES),
        ('<b style="color: red">', _IN_TEMPLATES),
        ("<b onclick=go()>", _IN_TEMPLATES),
        ('<script src="https://cdn.example/x.js">', _IN_TEMPLATES),
        ("a.innerHTML = b", _IN_SCRIPTS),
        ("eval(b)", _IN_SCRIPTS),
        ("element.setAttribute('style', b)", _IN_SCRIPTS),
        ("fetch('https://example.org')", _IN_SCRIPTS),
    ],
)
def test_rules__see_what_they_forbid(text: str, rules: dict[str, str]) -> None:
    assert _found(text, rules)


def _found(text: str, rules: dict[str, str]) -> list[str]:
    return [f"{what}: {match.group(0)!r}" for rule, what in rules.items() for match in re.finditer(rule, text)]
