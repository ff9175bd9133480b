"""Modules of the losses on logits."""

from torch import Tensor, nn

from ..ops.dice_loss import dice_loss
from ..ops.sigmoid_focal_loss import sigmoid_focal_loss
from ..ops.softmax_focal_loss import softmax_focal_loss


class SigmoidFocalLoss(nn.Module):
    """See :func:`fastvision.ops.sigmoid_focal_loss`. ``weight`` is a buffer."""

    weight: Tensor | None

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: str = "mean",
        *,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.alpha, self.gamma, self.reduction, self.ignore_index = alpha, gamma, reduction, ignore_index
        self.register_buffer("weight", weight)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return sigmoid_focal_loss(
            inputs,
            targets,
            self.alpha,
            self.gamma,
            self.reduction,
            weight=self.weight,
            ignore_index=self.ignore_index,
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, reduction={self.reduction!r}, ignore_index={self.ignore_index}"


class SoftmaxFocalLoss(nn.Module):
    """See :func:`fastvision.ops.softmax_focal_loss`. ``weight`` is a buffer."""

    weight: Tensor | None

    def __init__(
        self,
        alpha: float | None = None,
        gamma: float = 2.0,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.alpha, self.gamma, self.reduction, self.ignore_index = alpha, gamma, reduction, ignore_index
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return softmax_focal_loss(
            logits,
            labels,
            self.alpha,
            self.gamma,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, reduction={self.reduction!r}, ignore_index={self.ignore_index}"


class DiceLoss(nn.Module):
    """See :func:`fastvision.ops.dice_loss`."""

    def __init__(
        self,
        *,
        activation: str = "sigmoid",
        smooth: float = 1.0,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.activation, self.smooth, self.ignore_index, self.reduction = activation, smooth, ignore_index, reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return dice_loss(
            logits,
            targets,
            activation=self.activation,
            smooth=self.smooth,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return (
            f"activation={self.activation!r}, smooth={self.smooth}, ignore_index={self.ignore_index}, "
            f"reduction={self.reduction!r}"
        )
