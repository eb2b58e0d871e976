"""The family written for reading: one flat vector, one formula after the other, no memory saved.

Independent of xsam_core on purpose, so that a mistake there is not repeated here.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def flat(tensors) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


class Reference:
    """Computes the update gradient of one step at the present parameters, without moving them.

    Args:
        params: Parameters, all perturbed.
        loss: Takes nothing, returns the loss at the present parameters.
    """

    def __init__(self, params: list[Tensor], loss: Callable[[], Tensor]) -> None:
        self.params = params
        self.loss = loss

    def put(self, theta: Tensor) -> None:
        with torch.no_grad():
            for param, piece in zip(self.params, theta.split([p.numel() for p in self.params]), strict=True):
                param.copy_(piece.view_as(param))

    def loss_at(self, theta: Tensor) -> float:
        self.put(theta)
        return self.loss().item()

    def grad_at(self, theta: Tensor) -> Tensor:
        self.put(theta)
        return flat(torch.autograd.grad(self.loss(), self.params))

    def update(self, variant: str, *, rho: float, k: int, eta: float | None = None, **options) -> Tensor:
        theta_0 = flat(self.params)
        theta, first = theta_0, None
        for _ in range(k):
            grad = self.grad_at(theta)
            first = grad if first is None else first
            scaling = torch.ones_like(theta) if eta is None else theta.abs() + eta
            theta = theta + rho / k * scaling**2 * grad / (scaling * grad).norm()
        last = self.grad_at(theta)
        update = getattr(self, variant)(theta_0, theta - theta_0, first, last, **options)
        self.put(theta_0)
        return update

    def sam(self, theta_0, displacement, first, last) -> Tensor:
        return last

    def sgdplus(self, theta_0, displacement, first, last) -> Tensor:
        return last.norm() * displacement / displacement.norm()

    def wsam(self, theta_0, displacement, first, last, *, gamma) -> Tensor:
        return (1 - 2 * gamma) / (1 - gamma) * first + gamma / (1 - gamma) * last

    def gsam(self, theta_0, displacement, first, last, *, gap_weight) -> Tensor:
        along = last / last.norm()
        orthogonal = first - first.dot(along) * along
        return last - gap_weight * orthogonal

    def xsam(self, theta_0, displacement, first, last, *, rho_max) -> Tensor:
        v0, v1 = displacement / displacement.norm(), last / last.norm()
        psi = math.acos(v0.dot(v1))

        def turned(alpha: float) -> Tensor:
            return (math.sin((1 - alpha) * psi) * v0 + math.sin(alpha * psi) * v1) / math.sin(psi)

        alphas = [0.1 * i for i in range(21)]
        best = max(alphas, key=lambda alpha: self.loss_at(theta_0 + rho_max * turned(alpha)))
        return last.norm() * turned(best)
