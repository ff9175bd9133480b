"""Times of several contestants, taken in turns in one process."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], Any]


@dataclass(frozen=True)
class Time:
    """Medians in milliseconds; ``iqr`` is the interquartile range of ``wall``."""

    wall: float
    iqr: float
    cpu: float
    samples: int

    @staticmethod
    def of(walls: list[float], cpus: list[float]) -> "Time":
        low, _, high = statistics.quantiles(walls, n=4) if len(walls) > 1 else (walls[0],) * 3
        return Time(1e3 * statistics.median(walls), 1e3 * (high - low), 1e3 * statistics.median(cpus), len(walls))


def on_cpu(contestants: Mapping[str, Call], threads: int, seconds: float, *, most: int = 60) -> dict[str, Time]:
    """Each contestant gets about ``seconds`` and at least three samples; one that takes longer than that, its first."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _in_turns(contestants, seconds, most)
    finally:
        torch.set_num_threads(before)


def _in_turns(contestants: Mapping[str, Call], seconds: float, most: int) -> dict[str, Time]:
    first = {name: _sample(call, 1) for name, call in contestants.items()}
    samples = {name: [sample] if sample[0] >= seconds else [] for name, sample in first.items()}
    once = {name: min(first[name][0], _sample(contestants[name], 1)[0]) for name in samples if not samples[name]}
    # A sample of at least 2 ms: the clock of CPU time is coarse.
    repeats = {name: max(1, math.ceil(2e-3 / max(time, 1e-7))) for name, time in once.items()}
    for turn in range(most):
        for name in repeats:
            if turn < 3 or sum(wall for wall, _ in samples[name]) * repeats[name] < seconds:
                samples[name].append(_sample(contestants[name], repeats[name]))
    return {name: Time.of(*map(list, zip(*taken))) for name, taken in samples.items()}


def _sample(call: Call, repeats: int) -> tuple[float, float]:
    """Wall and CPU seconds of one call. Results are dropped within the time, as a program would."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats
    finally:
        if collecting:
            gc.enable()


@dataclass(frozen=True)
class DeviceFacts:
    """What one call does on a GPU. None: could not be found out."""

    launches: int | None
    synchronisations: int | None
    extra_bytes: int  # the peak of allocated memory during the call, without the result
    graph: Time | None  # as a replayed CUDA graph


def on_cuda(contestants: Mapping[str, Call], seconds: float, *, most: int = 60) -> dict[str, Time]:
    """Device time between two events, with a cold L2 cache. CPU time is the host's, launches and waits included."""
    flush = _cache_flush()
    for call in contestants.values():
        call()
    torch.cuda.synchronize()
    walls: dict[str, list[float]] = {name: [] for name in contestants}
    cpus: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(most):
        left = [name for name in contestants if turn < 3 or sum(walls[name]) < seconds]
        if not left:
            break
        for name in left:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush()
            cpu = time.process_time()
            start.record()
            contestants[name]()
            end.record()
            cpus[name].append(time.process_time() - cpu)
            end.synchronize()
            walls[name].append(start.elapsed_time(end) / 1e3)
    return {name: Time.of(walls[name], cpus[name]) for name in contestants}


def _cache_flush() -> Call:
    """Writes twice the size of the L2 cache."""
    size = 2 * torch.cuda.get_device_properties().L2_cache_size
    memory = torch.empty(size, dtype=torch.uint8, device="cuda")
    return memory.zero_


def facts(call: Call, seconds: float) -> DeviceFacts:
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    peak, after = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
    del result
    launches, synchronisations = _count(call)
    # A call that waits cannot be captured, and to try breaks later captures with torch 2.11.
    graph = None if synchronisations else graphed(call, seconds)
    return DeviceFacts(launches, synchronisations, peak - max(before, after), graph)


def _count(call: Call) -> tuple[int | None, int | None]:
    """Kernels launched and waits for the device, as the profiler saw them."""
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            call()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as idle:
            pass
    except RuntimeError:
        return None, None
    launches = sum("Launch" in e.name for e in profiled.events())
    waits, of_profiler = (sum("Synchronize" in e.name for e in p.events()) for p in (profiled, idle))
    return (launches, waits - of_profiler) if launches else (None, None)


def graphed(call: Call, seconds: float) -> Time | None:
    """The call captured in a CUDA graph; None if it waits for the device, which cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    time_of_graph = on_cuda({"graph": graph.replay}, seconds)["graph"]
    del result
    return time_of_graph
