import pytest

from xsam.services.errors import InvalidRequestError
from xsam.services.requirements import lines

DIGEST = 64 * "a"
PYLOCK = f"""
lock-version = "1.0"
[[packages]]
name = "einops"
version = "0.8.1"
wheels = [{{ url = "https://example.org/e.whl", hashes = {{ sha256 = "{DIGEST}" }} }}]
[[packages]]
name = "colorama"
version = "0.4.6"
marker = "sys_platform == 'win32'"
sdist = {{ url = "https://example.org/c.tar.gz", hashes = {{ sha256 = "{DIGEST}" }} }}
"""


def test_parse__reads_comments_continuations_and_hashes() -> None:
    found = lines.parse(f"# a lock\neinops==0.8.1 \\\n    --hash=sha256:{DIGEST}\n\nrich >= 13 # pretty\n")
    assert [(line.name, str(line.requirement.specifier), line.is_pinned) for line in found] == [
        ("einops", "==0.8.1", True),
        ("rich", ">=13", False),
    ]
    with pytest.raises(InvalidRequestError, match="rich>=13 is not locked"):
        lines.check_locked(found)


@pytest.mark.parametrize("text", ["einops==0.8.*", "einops>=0.8,<1", f"einops --hash=sha256:{DIGEST}"])
def test_parse__what_leaves_a_version_open_is_not_pinned(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not locked"):
        lines.check_locked(lines.parse(text))


def test_pylock__becomes_lines_of_a_lock() -> None:
    text = lines.from_pylock(PYLOCK)
    found = lines.parse(text)
    assert [(line.name, line.is_pinned) for line in found] == [("einops", True), ("colorama", True)]
    assert found[1].requirement.marker is not None
    with pytest.raises(InvalidRequestError, match="no pylock"):
        lines.from_pylock("[project]\nname = 'x'")


def test_id__is_of_the_text() -> None:
    assert lines.id_of("a==1\n") != lines.id_of("a==2\n")
    assert lines.packages_of(f"a==1 --hash=sha256:{DIGEST}\n\nb==2\n") == ["a==1", "b==2"]
