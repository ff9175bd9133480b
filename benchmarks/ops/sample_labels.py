"""Random choice of training samples."""

import torch
from fastvision import ops

from ..rivals import torchvision
from ..workload import Case, Workload

SAMPLES, SHARE = 256, 0.5


def build(device: torch.device, labels: int) -> Case:
    drawn = torch.randint(-1, 100, (labels,), generator=torch.Generator().manual_seed(0))
    values = torch.where(drawn > 1, 0, drawn).to(device)

    def with_torchvision() -> tuple[torch.Tensor, torch.Tensor]:
        sampler = torchvision.models.detection._utils.BalancedPositiveNegativeSampler(SAMPLES, SHARE)
        positive, negative = sampler([values])
        return positive[0], negative[0]

    def counts(result: tuple[torch.Tensor, torch.Tensor]) -> list[int]:
        """How many of each, and how many of them are what they should be."""
        positive, negative = (mask.bool() for mask in result)
        return [int(m.sum()) for m in (positive, negative, positive & (values >= 1), negative & (values == 0))]

    positives = min(int((values >= 1).sum()), int(SAMPLES * SHARE))
    return Case(
        ours=lambda: ops.sample_labels(values, SAMPLES, SHARE),
        expected=lambda: [positives, SAMPLES - positives] * 2,
        part=counts,
        rivals={"torchvision": with_torchvision},
        bytes=8 * labels + 2 * labels,
    )


WORKLOADS = [
    Workload("256 of 268,569", build, {"labels": 268_569}, {"labels": 1000}),
    Workload("256 of 2000", build, {"labels": 2000}, {"labels": 1000}),
]
