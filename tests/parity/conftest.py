import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def one_thread(poisoned_memory):
    """Small models: a second thread costs more than it brings."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def torchvision():
    from torchvision_loader import load_torchvision

    return load_torchvision()
