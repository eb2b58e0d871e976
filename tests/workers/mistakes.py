"""Mistakes in code that a job brings, and what each is told before anything is queued.

`python -m tests.workers.mistakes` prints the table as Markdown. Where nothing else is said, the code is that of `MINE`
followed by the mistake, as a task `mine:Mine`.
"""

import importlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tests.support.wheels import wheel
from xsam.services.bundles import archive
from xsam.services.bundles.archive import Limits
from xsam.services.errors import InvalidRequestError
from xsam.services.specs.job import JobSpec
from xsam.workers.environments import locking
from xsam.workers.environments.uv import RequirementsError
from xsam.workers.training.check import check, scratch_context

MINE = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from xsam.sdk import collect, groups, mean, ratio


class Mine:
    best = "accuracy:max"

    def model(self): return nn.Linear(6, 2)
    def train_data(self): return self.rows(40)
    def eval_data(self): return self.rows(20)
    def rows(self, n): x = torch.randn(n, 6); return x, (x[:, 0] > 0).long()
    def loss(self, model, batch): return F.cross_entropy(model(batch[0]), batch[1])
    def evaluate(self, model, batch):
        return {"accuracy": ratio((model(batch[0]).argmax(1) == batch[1]).sum(), len(batch[1]))}

"""
NO_BUNDLE = {"bundle": "sha256:" + 64 * "0"}
LIMITS = Limits(packed_bytes=2**20, unpacked_bytes=2**20, num_files=5)
"""Small ones, so that a test can go beyond them."""


@dataclass(frozen=True)
class Mistake:
    """One mistake: in a method of the task, in other code, in the folder, in the requirements or in the job."""

    what: str
    method: str = ""
    """Of the task; takes the place of the right one."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Beside or instead of the task's."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    requirements: str = ""
    is_of_folder: bool = False

    @property
    def shown(self) -> str:
        """What is wrong, on one line."""
        named = [f"{name}: {text[:40].strip()}" for name, text in list(self.files.items())[:2]]
        spec = [f"{name}: {value}" for name, value in self.spec.items()]
        return "; ".join(" ".join(one.split()) for one in (self.method, self.requirements, *named, *spec) if one)


MISTAKES: Sequence[Mistake] = (
    Mistake("a missing function", "loss = None"),
    Mistake("a misspelt class", spec={"task": {"target": "mine:Mien"}}),
    Mistake("a misspelt module", spec={"task": {"target": "mien:Mine"}}),
    Mistake("an import that fails", files={"mine.py": "import acme_missing\n"}),
    Mistake("a module of its own that is not sent", files={"mine.py": "from mine_parts.net import Net\n"}),
    Mistake("a syntax error", files={"mine.py": "class Mine:\n    def model(self) return 1\n"}),
    Mistake("the end of the process at import", files={"mine.py": "import sys\nsys.exit(3)\n"}),
    Mistake("an option that it does not take", spec={"task": {"target": "mine:Mine", "options": {"deep": 3}}}),
    Mistake("an option that it misses", "def __init__(self, dim): self.dim = dim"),
    Mistake("a model that is none", 'def model(self): return {"net": nn.Linear(6, 2)}'),
    Mistake("a model without parameters", "def model(self): return nn.Identity()"),
    Mistake("a wrong shape", "def model(self): return nn.Linear(5, 2)"),
    Mistake(
        "a network that returns a dict",
        """def model(self):
            class Net(nn.Linear):
                def forward(self, x): return {"logits": super().forward(x)}
            return Net(6, 2)""",
    ),
    Mistake("labels out of range", "def rows(self, n): return torch.randn(n, 6), torch.full((n,), 5)"),
    Mistake("a loss that is a dict", 'def loss(self, model, batch): return {"loss": model(batch[0]).mean()}'),
    Mistake("a loss for each example", "def loss(self, model, batch): return model(batch[0]).sum(1)"),
    Mistake("a loss without a gradient", "def loss(self, model, batch): return model(batch[0]).mean().detach()"),
    Mistake("a loss that is not finite", "def loss(self, model, batch): return model(batch[0]).mean() / 0 * 0"),
    Mistake(
        "a named value that is none of a batch",
        'def loss(self, model, batch): return model(batch[0]).mean(), {"logits": "high"}',
    ),
    Mistake("data that is none", "def train_data(self): return 3"),
    Mistake("fewer examples than a batch", "def train_data(self): return self.rows(3)"),
    Mistake("an evaluation set without examples", "def eval_data(self): return self.rows(0)"),
    Mistake("no evaluation set", "def eval_data(self): return {}"),
    Mistake(
        "items that make no batch",
        "def train_data(self): return [torch.zeros(1 + i % 2) for i in range(20)]",
    ),
    Mistake("a metric that does not add up", 'def evaluate(self, model, batch): return {"f1": 0.5}'),
    Mistake("a mean without its weight", 'def evaluate(self, model, batch): return {"mae": mean(torch.tensor(0.5))}'),
    Mistake(
        "predictions that nobody makes a metric of",
        'def evaluate(self, model, batch): return {"cls": collect(model(batch[0]), batch[1])}',
    ),
    Mistake(
        "predictions and targets of different lengths",
        'def evaluate(self, model, batch): return {"cls": collect(model(batch[0]), batch[1][:1])}',
    ),
    Mistake("a best metric that nobody measures", 'best = "f1:max"'),
    Mistake("a best metric without its better end", 'best = "accuracy"'),
    Mistake(
        "a group of parameters that there is not",
        'def param_groups(self, model): return groups(model, no_perturb=("LayerNorm",))',
    ),
    Mistake("a script that is not there", files={"other.py": ""}, spec={"entrypoint": "train.py"}),
    Mistake("a script that is no Python", files={"train.py": "print 'hello'\n"}, spec={"entrypoint": "train.py"}),
    Mistake("a script's missing import", files={"train.py": "import acme_missing\n"}, spec={"entrypoint": "train.py"}),
    Mistake("a script's missing function", files={"train.py": "def run(): ...\n"}, spec={"entrypoint": "train:main"}),
    Mistake("an argument of no field", spec={"entrypoint": ["train.py", "--lr", "{config.lr}"]}),
    Mistake("a field that a script does not hear of", spec={"entrypoint": "train.py", "recipe": {"ema_decay": 0.99}}),
    Mistake("a task and a script", spec={"task": {"target": "mine:Mine"}, "entrypoint": "train.py"}),
    Mistake("a task and a model", spec={"task": {"target": "mine:Mine"}, "model": {"name": "mlp"}}),
    Mistake("a target that is no name", spec={"task": {"target": "mine.py"}}),
    Mistake("a requirement that the service has in another version", requirements="torch==2.4"),
    Mistake("a package that needs another version", requirements="oldtorch"),
    Mistake("a package that there is not", requirements="acme-missing"),
    Mistake("an option among the requirements", requirements="--index-url https://example.org\neinops"),
    Mistake("a path among the requirements", requirements="./wheels/mine.whl"),
    Mistake("too much in the folder", files={"net.py": "", "raw.npz": 3 * 2**20 * "x"}, is_of_folder=True),
    Mistake("too many files", files={f"part-{n}.txt": n * "x" for n in range(9)}, is_of_folder=True),
    Mistake("an empty folder", files={".gitignore": "*\n"}, is_of_folder=True),
    Mistake("a secret in the folder", files={"train.py": "", ".env": "TOKEN=x", "id_rsa": "x"}, is_of_folder=True),
)


def told(mistake: Mistake) -> str:
    """Return what somebody who makes a mistake reads; empty if nobody tells."""
    with tempfile.TemporaryDirectory(prefix="mistake-") as scratch:
        folder = Path(scratch).resolve()
        text = _told(mistake, folder)
        return re.sub(r"\S*/mistake-\w+", "FOLDER", text)


def _told(mistake: Mistake, folder: Path) -> str:
    if mistake.requirements:
        wheel(folder, "oldtorch", needs=["torch<2"])
        try:
            return locking.lock(mistake.requirements, index=str(folder))
        except RequirementsError as e:
            return re.sub(r"(torch ?=*)\d[\w.+]*(?=[ ;,])(?<!2\.4)", r"\g<1>VERSION", str(e))
    method = mistake.method.replace("\n", "\n    ")
    files = mistake.files or {"mine.py": f"{MINE}\n    {method}\n"}
    for name, text in files.items():
        (folder / name).write_text(text)
    return _of_folder(folder) if mistake.is_of_folder else _of_job(mistake, folder)


def _of_folder(folder: Path) -> str:
    try:
        return f"Left out, since they look like secrets: {', '.join(archive.pack(folder, LIMITS).left_out_secrets)}"
    except InvalidRequestError as e:
        return e.message


def _of_job(mistake: Mistake, folder: Path) -> str:
    given = mistake.spec or {"task": {"target": "mine:Mine"}}
    small = {} if "entrypoint" in given else {"batch_size": 8}
    try:
        spec = JobSpec.model_validate({"code": NO_BUNDLE, **small, **given})
    except ValidationError as e:
        return "; ".join(error["msg"] for error in e.errors())
    with imported_from(folder), tempfile.TemporaryDirectory() as scratch:
        found = check(spec, scratch_context(None, folder, Path(scratch)))
    where = re.findall(r'File "([^"]+)", line \d+', found.traceback or "")
    return (f"{where[-1]}: " if where else "") + (found.error or "")


@contextmanager
def imported_from(folder: Path) -> Iterator[None]:
    """Import from a folder, and forget what came from it."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def as_markdown() -> str:
    """Return the table."""
    rows = [f"| {one.what} | `{_cell(one.shown)}` | {_cell(told(one))} |" for one in MISTAKES]
    return "\n".join(["| mistake | | what is told |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


if __name__ == "__main__":
    print(as_markdown())
