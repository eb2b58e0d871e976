"""What figures have computed is the same each time, and is what the optimizers do."""

import json

from xsam.workers.rank.computation import compute


def test_paths__begin_at_the_starts_and_end_where_the_rows_say() -> None:
    document = {"name": "trajectories", "rho": 0.6, "rho_max": 1.2, "lr": 0.05, "num_steps": 3, "num_starts": 2}
    found = compute(document)
    assert {end["method"] for end in found["ends"]} >= {"SGD", "SAM, k = 1", "XSAM, k = 5"}
    for path in found["paths"]:
        (end,) = [e for e in found["ends"] if (e["start"], e["method"]) == (path["start"], path["method"])]
        assert path["points"][-1] == [round(end["x"], 4), round(end["y"], 4)]
    assert json.dumps(compute(document)) == json.dumps(found)
    assert len(found["surface"]["values"]) == len(found["surface"]["ys"])


def test_qualities__have_a_row_for_each_start_and_k() -> None:
    document = {"name": "ascent_quality", "rho": 0.6, "rho_max": 1.2, "num_starts": 3, "ascent_steps": [1, 2]}
    rows = compute(document)["rows"]
    assert [(row["start"], row["ascent_steps"]) for row in rows] == [(s, k) for s in range(3) for k in (1, 2)]
    assert all(row["gradient"] <= row["chosen"] + 1e-9 <= 1.0 + 1e-6 for row in rows)


def test_proposition__is_found_where_the_closed_form_has_it() -> None:
    found = compute({"name": "proposition", "num_quadratics": 4, "num_networks": 2, "rho": 0.05})
    assert len(found["quadratics"]) > 0
    for one in found["quadratics"]:
        assert abs(one["found"] - one["rho_0"]) <= one["step"]
    for network in found["networks"]:
        assert len(network["radii"]) == len(network["first"]) == len(network["last"])
        assert network["loss"] > 0
