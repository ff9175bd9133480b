"""Every op test runs over the backends by the fixture ``backend``; fresh memory is filled with NaN."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Builds the CUDA kernels for the CPU, unless FASTVISION_EMULATED already names such a library."""
    if "FASTVISION_EMULATED" in os.environ:
        return
    build = ROOT / "build" / "emulated"
    configure = ["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", "-DFASTVISION_EMULATED=ON"]
    for command in ([*configure, f"-DPython_EXECUTABLE={sys.executable}"], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.exit(f"building the emulated library failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}", 3)
    os.environ["FASTVISION_EMULATED"] = str(build / "_emulated.so")


checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("quick", max_examples=25, deadline=None, suppress_health_check=checks)
settings.register_profile("default", max_examples=100, deadline=None, suppress_health_check=checks)
settings.register_profile("ci", max_examples=100, deadline=None, suppress_health_check=checks, derandomize=True)
settings.register_profile("soak", max_examples=20_000, deadline=None, suppress_health_check=checks)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """An output that a kernel forgot to write is NaN or the largest integer."""
    import torch

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def backend_names() -> list[str]:
    import torch

    return ["cpu", "emulated", *(["cuda"] if torch.cuda.is_available() else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", backend_names(), indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator["object"]:
    from support import Backend

    with Backend(request.param) as active:
        yield active
