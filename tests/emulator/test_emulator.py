"""The emulator does what CUDA does, in every thread order, and no sanitizer has anything to say about right kernels."""

import pytest
from planted import SCHEDULES, VARIANTS, run


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_right_kernels(variant: str, schedule: str) -> None:
    outcome = run(variant, "right", schedule)
    assert outcome.startswith("right"), outcome
