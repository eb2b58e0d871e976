"""Measures the optimizer library: `python -m tests.bench.core [--quick] [--only FIGURE]` prints markdown tables.

Every ratio comes from one run that takes its alternatives in turns and compares medians. "Ideal" is k + 1
forward-backward passes and the base optimizer's step, with nothing else.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from functools import partial

import torch

from tests.bench import core_gpu, core_own_work, core_plane, core_ranks
from tests.bench.core_models import CASES, Case, Rig
from tests.bench.core_timing import interleaved_seconds, table
from tests.xsam_core.test_memory import CASES as MEMORY_CASES
from tests.xsam_core.test_memory import extra_copies

QUICK_ROUNDS = 3
EPOCHS_IN_BATCHES = (14, 400)


def step_time(cases: tuple[Case, ...]) -> None:
    """Figure 1: a step without search."""
    rows = []
    for case in cases:
        rig = Rig(case)
        steps = {"sam": rig.sam(), "xsam": rig.xsam(alpha=1.2)}
        ours = {name: partial(o.step, rig.loss) for name, o in steps.items()}
        alternatives = {"ideal": rig.ideal_step, "textbook": rig.textbook_step, **ours}
        seconds = interleaved_seconds(alternatives, case.rounds)
        ideal = seconds["ideal"]
        ratios = (seconds[name] / ideal for name in ("textbook", "sam", "xsam"))
        rows.append((case.name, f"{ideal * 1e3:.1f}", *ratios, case.target))
    header = ("case", "ideal ms", "SAM written by hand", "SAM", "XSAM", "XSAM target")
    table("1. Step time without search, against the ideal", header, rows)


def memory() -> None:
    """Figure 2: model copies alive beyond those of the base optimizer's step."""
    rows = []
    for variant, options, limit in MEMORY_CASES:
        shown = ", ".join(f"{key}={value}" for key, value in options.items())
        rows.append((f"{variant.__name__}({shown})", extra_copies(variant, **options), limit))
    table(
        "2. Extra memory in a step, in model copies (CPU, all live tensors counted)", ("step", "copies", "limit"), rows
    )


def search_cost(cases: tuple[Case, ...]) -> None:
    """Figure 3: what the search of alpha adds to an epoch that searches once."""
    rows = []
    for case in cases:
        for kind in ("grid", "adaptive"):
            rig = Rig(case)
            optimizer = rig.xsam(alpha_search=kind)
            forwards = []

            def search(rig: Rig = rig, optimizer=optimizer, forwards: list[int] = forwards) -> None:
                optimizer.step(rig.loss, search_alpha=True)
                forwards.append(len(optimizer.telemetry.curve.alphas))

            seconds = interleaved_seconds(
                {
                    "ideal": rig.ideal_step,
                    "step": lambda rig=rig, optimizer=optimizer: optimizer.step(rig.loss, search_alpha=False),
                    "search": search,
                },
                max(3, case.rounds // 4),
            )
            added = seconds["search"] - seconds["step"]
            shares = [added / (n * seconds["step"] + added) for n in EPOCHS_IN_BATCHES]
            steady = forwards[1:]
            rows.append(
                (
                    case.name,
                    kind,
                    f"{sum(steady) / len(steady):.1f}",
                    seconds["search"] / seconds["ideal"],
                    *(f"{share:.1%}" for share in shares),
                )
            )
    table(
        "3. Search of alpha, once per epoch",
        (
            "case",
            "search",
            "forwards",
            "step with search / ideal",
            *(f"share of {n} batches" for n in EPOCHS_IN_BATCHES),
        ),
        rows,
    )


FIGURES = ("1", "2", "3", "4", "5", "6", "7")


def main() -> None:
    """Run all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads (default: all)")
    parser.add_argument("--only", choices=FIGURES, action="append", help="one figure; may be given again")
    arguments = parser.parse_args()
    wanted = arguments.only or FIGURES
    torch.set_num_threads(arguments.threads)
    cases = tuple(replace(c, rounds=min(c.rounds, QUICK_ROUNDS)) for c in CASES) if arguments.quick else CASES
    print(f"torch {torch.__version__}, {arguments.threads} threads, base optimizer SGD with momentum, float32, k = 1")
    reports = {
        "1": partial(step_time, cases),
        "2": memory,
        "3": partial(search_cost, (cases[1], cases[3])),
        "4": core_ranks.report,
        "5": core_gpu.report,
        "6": partial(core_own_work.report, cases),
        "7": partial(core_plane.report, (cases[1], cases[3])),
    }
    for figure in wanted:
        reports[figure]()


if __name__ == "__main__":
    main()
