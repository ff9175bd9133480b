"""Fuzzes the reading of run lengths, guided by coverage: python tools/fuzz_rle.py [--seconds 60]

Needs ``pip install atheris`` (libFuzzer) and g++. Starts without a corpus. csrc/kernels/rle_text.cpp is built with
coverage, AddressSanitizer and UndefinedBehaviorSanitizer; tools/fuzz_rle.cpp says what must hold. An input that
breaks it ends the run with a report and is kept in build/fuzz as crash-*; ``--input FILE`` repeats one.
"""

import argparse
import ctypes
import os
import subprocess
import sys
from pathlib import Path

from emulated import ROOT
from libfuzzer import FOLDER, fuzz

LIBRARY = FOLDER / "fuzz_rle.so"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
FLAGS = ["-std=c++20", "-g", "-O1", "-fPIC", "-D_GLIBCXX_ASSERTIONS", *SANITIZERS]


def build() -> None:
    """The code under test has coverage, the file that watches it has none."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")
    covered = FOLDER / "rle_text.o"
    source = ROOT / "csrc/kernels/rle_text.cpp"
    subprocess.run([compiler, *FLAGS, "-fsanitize-coverage=trace-pc", "-c", source, "-o", covered], check=True)
    sources = [ROOT / "tools/fuzz_rle.cpp", ROOT / "tools/coverage_counters.cpp"]
    sources += [ROOT / "csrc/kernels/rle.cpp", ROOT / "csrc/kernels/rle_polygon.cpp", covered]
    # Bound to itself, because the sanitizers have an empty hook for coverage of the same name.
    subprocess.run([compiler, *FLAGS, "-shared", "-Wl,-Bsymbolic", *sources, "-o", LIBRARY], check=True)


def runtime(name: str) -> str:
    compiler = os.environ.get("CXX", "g++")
    return subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--input", type=Path, help="repeat this one")
    options = parser.parse_args()
    if "FASTVISION_FUZZ" in os.environ:  # in a process that has been started with the sanitizers' runtime
        target = ctypes.CDLL(str(LIBRARY))
        target.fuzz_rle.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        fuzz(target, lambda data: target.fuzz_rle(data, len(data)), options.seconds, 256, options.input)
        return 0
    build()
    # Python never frees all it has; only errors of memory count.
    environment = {
        **os.environ,
        "FASTVISION_FUZZ": "1",
        "LD_PRELOAD": " ".join(runtime(name) for name in ("libasan.so", "libubsan.so")),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
    }
    return subprocess.run(
        [sys.executable, Path(__file__).resolve(), *sys.argv[1:]], env=environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
