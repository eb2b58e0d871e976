import pytest

from xsam.services.errors import InvalidRequestError
from xsam.services.requirements import lines
from xsam.services.requirements.uv_lock import from_uv_lock

DIGEST = 64 * "a"
REGISTRY = 'source = { registry = "https://example.org/simple" }'
LOCK = f"""
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "acme"
source = {{ virtual = "." }}
dependencies = [{{ name = "einops" }}, {{ name = "acme-nets" }}]
[package.optional-dependencies]
plots = [{{ name = "drawing" }}]
[package.dev-dependencies]
dev = [{{ name = "checking" }}]
[package.metadata]
requires-dist = [
    {{ name = "Einops", extras = ["torch"], specifier = ">=0.8", marker = "sys_platform == 'linux'" }},
    {{ name = "acme-nets", editable = "nets" }},
    {{ name = "drawing", marker = "extra == 'plots'" }},
]
[[package]]
name = "acme-nets"
source = {{ editable = "nets" }}
[package.metadata]
requires-dist = [{{ name = "torch", specifier = ">=2.4" }}]
[[package]]
name = "acme-server"
source = {{ editable = "server" }}
[package.metadata]
requires-dist = [{{ name = "webthings", git = "https://example.org/w.git" }}]
[[package]]
name = "einops"
version = "0.8.1"
{REGISTRY}
wheels = [{{ url = "https://example.org/e.whl", hash = "sha256:{DIGEST}" }}]
[[package]]
name = "torch"
version = "2.5.1"
resolution-markers = ["python_version < '3.13'", "sys_platform == 'darwin'"]
{REGISTRY}
"""


def test_uv_lock__asks_for_what_the_project_and_its_members_need_and_pins_the_rest() -> None:
    text = from_uv_lock(LOCK)
    assert text.splitlines() == [
        "einops[torch]>=0.8 ; sys_platform == 'linux'",
        "torch>=2.4",
        f"-c einops==0.8.1 --hash=sha256:{DIGEST}",
        "-c torch==2.5.1 ; (python_version < '3.13') or (sys_platform == 'darwin')",
    ]
    assert [(line.name, line.version, line.is_pin) for line in lines.parse(text)] == [
        ("einops", None, False),
        ("torch", None, False),
        ("einops", "0.8.1", True),
        ("torch", "2.5.1", True),
    ]


def test_uv_lock__without_a_project_asks_for_what_its_members_need() -> None:
    members = LOCK[LOCK.index('[[package]]\nname = "acme-nets"') :].replace(", git = ", ", index = ")
    assert from_uv_lock(f"version = 1\n{members}").splitlines()[:2] == ["webthings", "torch>=2.4"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version = 2", r"uv\.lock has version 2; version 1 is read"),
        ("version = ", "this is no uv.lock"),
        ("[project]\nname = 'x'", "this is no uv.lock"),
        (
            LOCK.replace('editable = "nets" },', 'git = "https://example.org/n.git" },'),
            r"has acme-nets from git https://example\.org/n\.git; packages come from where the operator says",
        ),
    ],
)
def test_uv_lock__that_cannot_be_had_is_told(text: str, told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        from_uv_lock(text)


def test_locked_only__takes_what_a_pin_locks() -> None:
    lines.check_locked(lines.parse(f"einops>=0.8\n-c einops==0.8.1 --hash=sha256:{DIGEST}\n"))
    with pytest.raises(InvalidRequestError, match=r"einops>=0\.8 is not locked"):
        lines.check_locked(lines.parse("einops>=0.8\n-c einops==0.8.1\n"))


def test_pin__names_one_version() -> None:
    with pytest.raises(InvalidRequestError, match=r"-c einops>=0\.8 names no single version"):
        lines.parse("-c einops>=0.8\n")
