import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(poisoned_memory):
    """Small models: a second thread costs more than it brings."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
