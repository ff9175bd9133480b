"""Runs libFuzzer (``pip install atheris``) over a library that has tools/coverage_counters.cpp in it."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

from emulated import ROOT

FOLDER = ROOT / "build/fuzz"  # inputs that ended a run are kept here


def fuzz(library: ctypes.CDLL, call: Callable[[bytes], object], seconds: int, length: int, again: Path | None) -> None:
    """Calls ``call`` with inputs of up to ``length`` bytes until one breaks it, or with ``again`` alone."""
    import atheris
    from atheris import core_with_libfuzzer

    FOLDER.mkdir(parents=True, exist_ok=True)
    library.fuzz_counters.restype = ctypes.c_void_p
    library.fuzz_counters_size.restype = ctypes.c_size_t
    first = library.fuzz_counters()
    watch = ctypes.CDLL(core_with_libfuzzer.__file__).__sanitizer_cov_8bit_counters_init
    watch(ctypes.c_void_p(first), ctypes.c_void_p(first + library.fuzz_counters_size()))
    limits = [f"-max_total_time={seconds}", f"-max_len={length}", "-timeout=60", "-rss_limit_mb=0"]
    arguments = [str(again)] if again else [*limits, f"-artifact_prefix={FOLDER}/"]
    atheris.Setup([sys.argv[0], *arguments], call)
    atheris.Fuzz()
