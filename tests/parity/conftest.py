import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def torchvision():
    from torchvision_loader import load_torchvision

    return load_torchvision()
