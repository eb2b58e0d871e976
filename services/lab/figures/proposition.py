"""Proposition 1, in numbers: on quadratics, where its rho_0 has a closed form, and on trained networks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from xsam.services.lab.figures.figure import Evidence, Figure
from xsam.services.lab.finding import Finding, Panel, Series, estimate, is_above, told
from xsam.services.lab.spec import LabSpec, Stage

NUM_QUADRATICS = 20
NUM_NETWORKS = 8
_RHO = 0.05
CLAIM = "From some radius rho_0 on the loss along g_1 is above the loss along g_0."


def _plan(spec: LabSpec) -> list[Stage]:
    numbers: dict[str, Any] = {"num_quadratics": NUM_QUADRATICS, "num_networks": NUM_NETWORKS, "rho": _RHO}
    return [Stage(name="crossings", kind="computation", document={"name": "proposition", **numbers})]


def _find(spec: LabSpec, evidence: Mapping[str, Evidence]) -> Finding:
    computed = evidence["crossings"].computed
    quadratics: Sequence[Mapping[str, float]] = computed["quadratics"]
    networks: Sequence[Mapping[str, Any]] = computed["networks"]
    ahead = [network["last"][-1] - network["first"][-1] for network in networks]
    decisive = estimate("loss along g_1 - loss along g_0 at the largest radius over seeds", ahead)
    misses = [abs(one["found"] - one["rho_0"]) / one["step"] for one in quadratics]
    crossings = [network["crossing"] for network in networks if network["crossing"] is not None]
    where = estimate("rho_0 of networks over seeds", crossings) if crossings else None
    radii = networks[0]["radii"]
    return Finding(
        verdict=is_above(decisive),
        claim=CLAIM,
        caption=(
            f"Left: losses along g_0 and g_1 around the weights of {len(networks)} networks trained on a small "
            f"regression, mean and 95 % interval. rho_0 was found in {len(crossings)} of {len(networks)}"
            + (f", at {told(where)}" if where is not None else "")
            + f"; at a radius of {radii[-1]:.2g} the loss along g_1 is above by {told(decisive)}. Right: "
            f"the rho_0 of {len(quadratics)} random quadratics as found on a grid, over the one in closed form; the "
            f"farthest miss is {max(misses):.2f} grid steps. Ascent of one step, rho {_RHO:g}."
        ),
        estimates=[decisive] if where is None else [decisive, where],
        panels=[
            Panel(
                title="trained networks",
                x_label="radius",
                y_label="rise of the loss",
                series=[_profile("along g_0", "first", networks), _profile("along g_1", "last", networks)],
            ),
            Panel(
                title="quadratics",
                x_label="rho_0 in closed form",
                y_label="rho_0 found",
                series=[Series(name="quadratics", points=sorted((one["rho_0"], one["found"]) for one in quadratics))],
            ),
        ],
        columns=["case", "number", "rho_0_closed_form", "rho_0_found", "radius", "loss_g_0", "loss_g_1"],
        rows=[
            *(["quadratic", n, one["rho_0"], one["found"], None, None, None] for n, one in enumerate(quadratics)),
            *(
                ["network", n, None, one["crossing"], radius, first, last]
                for n, one in enumerate(networks)
                for radius, first, last in zip(one["radii"], one["first"], one["last"], strict=True)
            ),
        ],
    )


def _profile(title: str, which: str, networks: Sequence[Mapping[str, Any]]) -> Series:
    by_radius: defaultdict[float, list[float]] = defaultdict(list)
    for network in networks:
        for radius, loss in zip(network["radii"], network[which], strict=True):
            by_radius[radius].append(loss - network["loss"])
    means = [(radius, estimate("", values)) for radius, values in sorted(by_radius.items())]
    return Series(
        name=title,
        points=[(radius, mean.value) for radius, mean in means],
        band=[(m.value if m.low is None else m.low, m.value if m.high is None else m.high) for _, m in means],
        has_marks=False,
    )


FIGURES = {"prop1": Figure("Proposition 1", CLAIM, _plan, _find)}
