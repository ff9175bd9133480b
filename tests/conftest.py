"""Every op test runs over the backends by the fixture ``backend``; fresh memory is filled with NaN."""

import os
from collections.abc import Iterator
from pathlib import Path

import emulated
import pytest
from hypothesis import HealthCheck, Phase, settings


def pytest_configure() -> None:
    """Builds the CUDA kernels for the CPU, unless FASTVISION_EMULATED already names such a library.

    fastvision loads that library where it is imported, so no conftest.py may import it outside of functions.
    """
    # Before torch is imported: threads that spin while they wait keep the other workers' from the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if "FASTVISION_EMULATED" in os.environ:
        return
    try:
        os.environ["FASTVISION_EMULATED"] = str(emulated.build())
    except RuntimeError as error:
        pytest.exit(str(error), 3)


checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("quick", max_examples=25, deadline=None, suppress_health_check=checks)
examples = int(os.environ.get("FASTVISION_EXAMPLES", 100))
settings.register_profile(
    "default",
    max_examples=examples,
    deadline=None,
    suppress_health_check=checks,
    derandomize="FASTVISION_EXAMPLES" in os.environ,  # runs of few examples, as in .ci/run, always take the same ones
)
settings.register_profile("ci", max_examples=300, deadline=None, suppress_health_check=checks, derandomize=True)
settings.register_profile("soak", max_examples=20_000, deadline=None, suppress_health_check=checks)
# For runs of which only the outcome matters: no time is spent on making a failure small.
settings.register_profile(
    "mutants", settings.get_profile("default"), derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """An output that a kernel forgot to write is NaN or the largest integer."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def exact_products() -> None:
    """Convolutions in CUDA source round float32 to TF32 by torch's default; tests that want that say so."""
    import torch

    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(autouse=True)
def no_data_races() -> Iterator[None]:
    """Under ThreadSanitizer (tools/check_kernels.py) a test in which a race is reported fails."""
    log = os.environ.get("FASTVISION_RACE_LOG")
    reports = Path(f"{log}.{os.getpid()}")
    before = reports.stat().st_size if log and reports.exists() else 0
    yield
    if log and reports.exists() and reports.stat().st_size > before:
        pytest.fail("data race:\n" + reports.read_bytes()[before:].decode(errors="replace"), pytrace=False)


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


@pytest.fixture
def cpu() -> Iterator["object"]:
    """The backend of what only the CPU has."""
    from support import Backend

    with Backend("cpu") as active:
        yield active


@pytest.fixture
def vectors_of_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every processor algorithm="auto" of convolutions chooses as on one that multiplies them."""
    import torch
    from fastvision.ops import _dispatch

    for dtype in (torch.bfloat16, torch.float16):
        monkeypatch.setitem(_dispatch._PRODUCT, dtype, 0.5)
