"""The errors that csrc/kernels/elementary.h states, and the same bits for every instruction set."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import fastvision
import pytest
from emulated import KERNELS

FLAGS = {"baseline": [], "avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}
BOUNDS = {"exp_negative": 1, "log_of": 1, "log1p_unit": 2.5, "angle_of": 3}


def measured(isa: str, folder: Path) -> list[str]:
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    command = [compiler, "-std=c++20", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
    command += ["-fno-strict-aliasing", "-Wno-psabi", "-DFV_ISA=fastvision::Baseline", f"-I{KERNELS}", *FLAGS[isa]]
    program = folder / isa
    subprocess.run([*command, Path(__file__).with_name("elementary.cpp"), "-o", program], check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instruction sets of x86-64")
def test_errors_and_equality(tmp_path):
    best = list(FLAGS).index(fastvision.build_info()["cpu_isa_best"])
    results = [measured(isa, tmp_path) for isa in list(FLAGS)[: best + 1]]
    assert all(lines == results[0] for lines in results)
    for line in results[0]:
        errors = [float(v) for v in line.split()[1:-1]]
        assert all(error <= bound for error, bound in zip(errors, BOUNDS.values(), strict=True)), line
