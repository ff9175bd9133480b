"""The training loop of models that compute their own losses."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = tuple[Sequence[Tensor], Sequence[Mapping[str, Tensor]]]
Schedule = Callable[[float], float]


class Trainable(Protocol):
    """A module with a method that gives named losses, as the detectors of :mod:`fastvision.models` have."""

    def loss(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self, mode: bool = True) -> object: ...


@dataclass(frozen=True)
class Step:
    """One step of a training: its number from 1, which share of the training is done after it, seconds since the
    start, images seen so far, the learning rate, the sum of the losses, and each of them."""

    number: int
    share: float
    seconds: float
    images: int
    learning_rate: float
    loss: float
    losses: dict[str, float]


@dataclass
class TrainingLog:
    """All steps of a training, and the CPU seconds that the process spent on it."""

    steps: list[Step] = field(default_factory=list)
    cpu_seconds: float = 0.0


def one_cycle(peak: float, *, warm_up: float = 0.3, start: float = 0.04, end: float = 4e-6) -> Schedule:
    """Learning rate as a function of the share of training done (Smith, 2018): a cosine up, then one down.

    Args:
        peak: The highest rate.
        warm_up: Share of the training at which it is reached.
        start, end: First and last rate as parts of ``peak``.

    >>> rate = one_cycle(3e-3)
    >>> round(rate(0.0), 6), round(rate(0.3), 6), round(rate(0.65), 6)
    (0.00012, 0.003, 0.0015)
    """
    if not (peak > 0 and 0 < warm_up < 1 and start > 0 and end > 0):
        raise ValueError(f"one_cycle: expected positive numbers and warm_up below 1, got {peak, warm_up, start, end}")

    def rate(share: float) -> float:
        first, last, passed = (start, 1.0, share / warm_up)
        if share > warm_up:
            first, last, passed = 1.0, end, min((share - warm_up) / (1 - warm_up), 1.0)
        return peak * (last + (first - last) * (1 + math.cos(math.pi * passed)) / 2)

    return rate


def train(
    model: Trainable,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    max_gradient_norm: float | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> TrainingLog:
    """Train on the sum of the model's losses, for a number of steps or for a time.

    With ``steps`` the result depends on nothing but the arguments: the same seed, threads and machine give the same
    bits. With ``seconds`` the schedule follows the clock, and so does the result.

    Args:
        model: Left in training mode.
        batches: Each ``(images, targets)`` as ``model.loss`` takes them. If they end early, so does the training.
        optimizer: Of the model's parameters.
        schedule: Share of the training done, in [0, 1], to the learning rate of all parameter groups.
        steps: How many to make.
        seconds: How long to train; at least one step is made.
        max_gradient_norm: Longer gradients are scaled down to this length.
        on_step: Called after every step. What it raises ends the training.

    Raises:
        ValueError: Not exactly one of ``steps`` and ``seconds``, or one that is not positive.
        FloatingPointError: A loss is not finite; the parameters are those before the step.
    """
    if (steps is None) == (seconds is None):
        raise ValueError(f"train: expected either steps or seconds, got {steps} and {seconds}")
    if (steps is not None and steps < 1) or (seconds is not None and not seconds > 0):
        raise ValueError(f"train: expected a positive number, got {steps if seconds is None else seconds}")
    log = TrainingLog()
    model.train()
    start, cpu_start = time.perf_counter(), time.process_time()
    share, images_seen = 0.0, 0
    for number, (images, targets) in enumerate(batches, 1):
        rate = schedule(share)
        losses = _update(model, images, targets, optimizer, rate, max_gradient_norm, number)
        images_seen += len(images)
        elapsed = time.perf_counter() - start
        share = number / steps if steps is not None else min(elapsed / (seconds or 1), 1.0)
        step = Step(number, share, elapsed, images_seen, rate, sum(losses.values()), losses)
        log.steps.append(step)
        if on_step is not None:
            on_step(step)
        if share >= 1:
            break
    log.cpu_seconds = time.process_time() - cpu_start
    return log


def _update(
    model: Trainable,
    images: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    rate: float,
    max_gradient_norm: float | None,
    number: int,
) -> dict[str, float]:
    """One step of the optimizer; returns the losses."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    losses = model.loss(images, targets)
    total = torch.stack(list(losses.values())).sum()
    values = {name: float(value.detach()) for name, value in losses.items()}
    if not math.isfinite(sum(values.values())):
        raise FloatingPointError(f"train: step {number}: the loss is not finite: {values}")
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    if max_gradient_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm)
    optimizer.step()
    return values
