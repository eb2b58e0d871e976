"""The recipes of xsam_core/README.md, taken from its text and run."""

import inspect
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import xsam_core
from tests.xsam_core.ranks import on_ranks
from xsam_core import XSAM
from xsam_core.directions import WSAMDirection

README = Path(xsam_core.__file__).parent / "README.md"
RECIPE = re.compile(r"<!-- recipe: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
RECIPES = dict(RECIPE.findall(README.read_text(encoding="utf-8")))


def surroundings(dtype: torch.dtype = torch.float32) -> dict:
    """Return what a reader of a recipe has already: a model, data, a loss."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    batches = [(torch.randn(8, 5, generator=generator), torch.randint(3, (8,), generator=generator)) for _ in range(4)]
    return {
        "XSAM": XSAM,
        "torch": torch,
        "model": nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).to(dtype),
        "loader": batches,
        "criterion": nn.CrossEntropyLoss(),
        "epochs": 3,
        "device": "cpu",
    }


def run(name: str, names: dict) -> dict:
    exec(compile(RECIPES[name], f"README.md, recipe {name}", "exec"), names)
    return names


def mean_loss(names: dict) -> float:
    with torch.no_grad():
        return sum(names["criterion"](names["model"](x), y).item() for x, y in names["loader"]) / len(names["loader"])


def test_readme__has_the_eight_recipes():
    assert list(RECIPES) == ["plain", "ddp", "amp", "accumulation", "queue", "resume", "plane", "surface"]


@pytest.mark.parametrize("name", ["plain", "amp", "accumulation", "queue"])
def test_recipe__learns(name):
    names = surroundings()
    before = mean_loss(names)
    run(name, names)
    assert mean_loss(names) < before
    assert names["optimizer"].telemetry is not None


def test_recipe__plain_moves_the_learning_rate_and_prints_alpha(capsys):
    names = run("plain", surroundings())
    assert names["optimizer"].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 0", "epoch 1", "epoch 2"]


def ddp_recipe() -> dict:
    names = surroundings()
    names["loader"] = [(x[dist.get_rank() :: 2], y[dist.get_rank() :: 2]) for x, y in names["loader"]]
    run("ddp", names)
    return {"params": [p.detach() for p in names["model"].parameters()], "alpha": names["optimizer"].alpha}


def test_recipe__ddp_keeps_ranks_equal(tmp_path):
    first, second = on_ranks(ddp_recipe, tmp_path)
    assert first["alpha"] == second["alpha"]
    assert all(torch.equal(a, b) for a, b in zip(first["params"], second["params"], strict=True))


def test_recipe__resume_puts_everything_back(tmp_path):
    names = run("plain", surroundings())
    names["path"] = tmp_path / "checkpoint.pt"
    run("resume", names)
    inputs, targets = names["loader"][0]
    saved = {key: value.clone() for key, value in names["model"].state_dict().items()}

    def next_loss() -> float:
        return names["optimizer"].step(lambda: names["criterion"](names["model"](inputs), targets)).item()

    names["optimizer"].step(lambda: names["criterion"](names["model"](inputs), targets))
    straight = next_loss()
    names["model"].load_state_dict(saved)
    names["optimizer"].load_state_dict(names["saved"]["optimizer"])
    names["optimizer"].step(lambda: names["criterion"](names["model"](inputs), targets))
    assert next_loss() == straight


def test_readme__shows_wsam_as_it_is():
    """The class in the text is the code of the real one, without its docstring."""
    shown = re.search(
        r"```python\n(@dataclass\(frozen=True\)\nclass WSAMDirection.*?)```", README.read_text(), re.DOTALL
    )
    source = re.sub(r'\n    """.*?"""\n', "", inspect.getsource(WSAMDirection), flags=re.DOTALL)

    def code(text: str) -> list[str]:
        return [line.split("#")[0].rstrip() for line in text.splitlines() if line.strip()]

    assert code(shown[1]) == code(source)


def test_recipe__plane_looks_and_changes_nothing(capsys):
    names = surroundings()
    before = mean_loss(names)
    run("plane", names)
    assert mean_loss(names) == before
    assert "at rho_max: g_0" in capsys.readouterr().out
    assert names["plane"].chosen_loss >= names["plane"].first_loss


def test_recipe__surface_finds_the_largest_rise_with_xsam(capsys):
    names = run("surface", surroundings())
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert names["found"].chosen > names["found"].gradient
    assert len(names["path"]) == 101
