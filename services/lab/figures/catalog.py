"""All figures by name, in the paper's order."""

from collections.abc import Mapping

from xsam.services.lab.figures import planes, proposition, searches, surfaces, sweeps
from xsam.services.lab.figures.figure import Figure

FIGURES: Mapping[str, Figure] = dict(
    sorted({**planes.FIGURES, **surfaces.FIGURES, **searches.FIGURES, **sweeps.FIGURES, **proposition.FIGURES}.items())
)
