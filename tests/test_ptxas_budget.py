import ptxas_budget
import pytest
from emulated import KERNELS, ROOT


@pytest.mark.parametrize("kernel", sorted(KERNELS.glob("*.cu")), ids=lambda path: path.stem)
def test_registers_and_spills_are_within_the_budget(kernel):
    if ptxas_budget.nvcc() is None:
        pytest.skip("no nvcc")
    assert ptxas_budget.check(kernel) == []


def test_table_in_the_documentation_is_up_to_date():
    assert ptxas_budget.TABLE.read_text() == ptxas_budget.table()


def test_tensor_core_wrappers_compile_without_spills():
    if ptxas_budget.nvcc() is None:
        pytest.skip("no nvcc")
    kernels = ptxas_budget.measure(ROOT / "tests/emulator/fragments.cu")
    assert {"multiply<float>", "multiply<Half>", "multiply<BFloat16>", "load", "multiply_tiles"} <= set(kernels)
    assert all(usage.spill_bytes == 0 for usage in kernels.values())
