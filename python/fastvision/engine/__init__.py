"""Training: a plain loop that repeats bit by bit."""

from .train import Step, Trainable, TrainingLog, one_cycle, train

__all__ = ["Step", "Trainable", "TrainingLog", "one_cycle", "train"]
