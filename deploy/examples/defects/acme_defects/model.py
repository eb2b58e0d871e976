"""A network with two heads: which defect, and how severe."""

from torch import Tensor, nn


class DefectNet(nn.Module):
    """A small trunk over 12 sensor values, a head of three classes and a head of one number."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, dim), nn.LayerNorm(dim), nn.GELU(), nn.Dropout(0.1))
        self.kind = nn.Linear(dim, 3)
        self.severity = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x)
        return {"kind": self.kind(features), "severity": self.severity(features)[:, 0]}
