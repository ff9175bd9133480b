"""The command ``fastvision``. Beside the package fastvision, not in it: importing that loads torch and the native
library, which the help must not wait for and ``fastvision info`` must survive the lack of."""

from .command_line import main

__all__ = ["main"]
