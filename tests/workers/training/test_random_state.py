import random
from pathlib import Path

import numpy as np
import torch

from tests.workers.training.runs import context_in
from xsam.workers.training.checkpoints.files import read_state, write_state
from xsam.workers.training.random_state import random_states, restore_random_states


def draws() -> tuple[float, float, float, float]:
    return random.random(), float(np.random.normal()), float(torch.rand(())), random.gauss(0, 1)


def test_random_states__go_on_where_they_were_after_a_file(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    # Leaves numpy and Python with one half of a pair of normal numbers in hand.
    draws()
    write_state(tmp_path / "state.pt", random_states(context))
    expected = draws()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    restore_random_states(read_state(tmp_path / "state.pt"), context)
    assert draws() == expected
