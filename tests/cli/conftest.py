from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from shell import Result

NOTE = {"model": "mask_rcnn_tiny", "num_classes": 4, "class_names": ["数字", "كشف", "x" * 400]}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that has learned nothing, whose detections all have a score of about one in four."""
    from fastvision.models.detection import mask_rcnn_tiny
    from fastvision_cli.model_files import weights_to_bytes

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    path.write_bytes(weights_to_bytes(mask_rcnn_tiny(4), NOTE))
    return path


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs the command in this process, for cases that can do no harm to it."""
    from fastvision_cli import main

    def run(*words: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Result(code, *capsys.readouterr(), cpu_seconds=0.0)

    return run
