"""The house in figures: `python -m tests.architecture.figures` prints them; a test holds the two that must be 0.

Floors are the folders (and lone files) of services, and those of workers, each in the order in which the contracts of
pyproject.toml list them: an arrow is upward if a module imports from a floor above its own.
"""

import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
ROOMS = ("xsam_core", "services", "workers", "api")
PACKAGES = ("xsam_core", "xsam.services", "xsam.workers", "xsam.api")


def sizes() -> dict[str, tuple[int, int]]:
    """Return the Python files and their lines of each room, as git knows them."""
    found = {}
    for room in ROOMS:
        listed = subprocess.run(["git", "ls-files", room], cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in listed.stdout.split() if name.endswith(".py") and (ROOT / name).exists()]
        found[room] = (len(paths), sum(len(path.read_text().splitlines()) for path in paths))
    return found


def import_graph() -> grimp.ImportGraph:
    """Return who imports whom, in all rooms."""
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or not."""
    below = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    return sorted(sorted(group) for group in _strongly_connected(below) if len(group) > 1)


def floors() -> dict[str, list[set[str]]]:
    """Return the floors of each room that has a contract for them, top first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {
        contract["containers"][0]: [
            set(layer.replace(" ", "").replace("(", "").replace(")", "").replace(":", "|").split("|"))
            for layer in contract["layers"]
        ]
        for contract in contracts
        if contract["type"] == "layers" and len(contract.get("containers", ())) == 1
    }


def upward(graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    """Return the imports that go to a floor above, or from and to a module that stands on none."""
    found = []
    for container, layers in floors().items():
        level = {f"{container}.{name}": number for number, layer in enumerate(layers) for name in layer}
        for module in graph.modules:
            for imported in graph.find_modules_directly_imported_by(module):
                here, there = _floor(container, module), _floor(container, imported)
                if here and there and here != there and level.get(there, -1) <= level.get(here, -1):
                    found.append((module, imported))
    return sorted(found)


def _floor(container: str, module: str) -> str | None:
    rest = module.removeprefix(f"{container}.")
    return f"{container}.{rest.split('.')[0]}" if rest != module else None


def _strongly_connected(below: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Yield the strongly connected components: two walks, the second against the arrows (Kosaraju)."""
    above = defaultdict(set)
    for module, imported in below.items():
        for one in imported:
            above[one].add(module)
    done: set[str] = set()
    order = [module for start in sorted(below) for module in _walk(start, below, done)]
    done = set()
    for start in reversed(order):
        group = list(_walk(start, above, done))
        if group:
            yield group


def _walk(start: str, arrows: Mapping[str, Iterable[str]], done: set[str]) -> Iterator[str]:
    """Yield what can be reached and was not visited, each after all that it leads to."""
    if start in done:
        return
    done.add(start)
    stack = [(start, iter(sorted(arrows.get(start, ()))))]
    while stack:
        module, rest = stack[-1]
        following = next((one for one in rest if one not in done), None)
        if following is None:
            stack.pop()
            yield module
        else:
            done.add(following)
            stack.append((following, iter(sorted(arrows.get(following, ())))))


def main() -> None:
    """Print the figures."""
    counted, graph = sizes(), import_graph()
    print(f"{'room':<12}{'files':>8}{'lines':>8}")
    for room, (num_files, num_lines) in counted.items():
        print(f"{room:<12}{num_files:>8}{num_lines:>8}")
    print(
        f"{'all':<12}{sum(files for files, _ in counted.values()):>8}{sum(lines for _, lines in counted.values()):>8}"
    )
    found_circles, found_upward = circles(graph), upward(graph)
    print(f"import circles: {len(found_circles)}")
    for circle in found_circles:
        print("  " + " <-> ".join(circle))
    print(f"upward arrows between floors ({', '.join(floors())}): {len(found_upward)}")
    for module, imported in found_upward:
        print(f"  {module} -> {imported}")


if __name__ == "__main__":
    main()
