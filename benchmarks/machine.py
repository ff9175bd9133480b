"""The machine: its name, its versions, what it can reach and whether others are using it."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastvision import _lib

from .rivals import VERSIONS

LAUNCH_SECONDS = 4e-6  # one kernel in a stream, the least that anything on a GPU takes


def describe(device: str) -> dict[str, Any]:
    build = _lib.build_info()
    facts: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instruction_set": build["cpu_isa"],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "fastvision": build["version"] or "unknown",
        "compiler": build["compiler"],
        "torch": torch.__version__,
    }
    facts |= {name: version for name, version in VERSIONS.items() if name not in ("eager", "compiled")}
    if device == "cuda":
        properties = torch.cuda.get_device_properties()
        facts |= {
            "gpu": properties.name,
            "gpu_memory_gb": round(properties.total_memory / 1e9),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "driver": _driver(),
            "cuda": torch.version.cuda,
        }
    return facts


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read()
    except OSError:
        return platform.processor() or platform.machine()
    fields: dict[str, str] = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.MULTILINE))
    name = fields.get("model name", platform.machine())
    if "family" not in name and "cpu family" in fields:  # virtual machines may hide the name
        name = f"{name} family {fields['cpu family']} model {fields.get('model', '?')}"
    return name


def slug(facts: dict[str, Any]) -> str:
    """A file name for results of this machine."""
    name = facts.get("gpu") or f"{facts['processor']} {facts['cores']} cores"
    name = re.sub(r"\((R|TM)\)|\b(Processor|family|model)\b", "", str(name))
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.split("\n")[0] or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


@dataclass(frozen=True)
class Ceilings:
    """What this machine can reach, measured: bytes per second of a triad, operations per second of a matrix product."""

    bandwidth: float
    operations: float
    least_seconds: float = 0.0

    def floor_ms(self, moved: float, operations: float) -> float:
        return 1e3 * max(moved / self.bandwidth, operations / self.operations, self.least_seconds)


def ceilings_of_cpu(threads: int, *, quick: bool = False) -> Ceilings:
    """The best of several tries, on one thread in CPU time: what else the machine does lowers no ceiling."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        size = 2**20 if quick else 2**25  # 128 MB each: beyond the caches
        a, b, c = (torch.ones(size) for _ in range(3))
        m = torch.randn(256 if quick else 1536, 256 if quick else 1536)
        tries = 2 if quick else 9
        clock = time.process_time if threads == 1 else time.perf_counter
        triad = min(_seconds(clock, lambda: torch.add(b, c, alpha=0.5, out=a)) for _ in range(tries))
        product = min(_seconds(clock, lambda: m @ m) for _ in range(tries))
        return Ceilings(12 * size / triad, 2 * m.shape[0] ** 3 / product)
    finally:
        torch.set_num_threads(before)


def _seconds(clock: Callable[[], float], call: Callable[[], Any]) -> float:
    start = clock()
    call()
    return clock() - start


def ceilings_of_cuda() -> Ceilings:
    from .measure import on_cuda

    size = 2**28
    a, b, c = (torch.ones(size, device="cuda") for _ in range(3))
    triad = on_cuda({"triad": lambda: torch.add(b, c, alpha=0.5, out=a)}, 0.2)["triad"]
    m = torch.randn(8192, 8192, device="cuda")
    product = on_cuda({"product": lambda: m @ m}, 0.5)["product"]
    return Ceilings(12 * size / triad.wall * 1e3, 2 * m.shape[0] ** 3 / product.wall * 1e3, LAUNCH_SECONDS)


def contention() -> str | None:
    """What others do on this machine, if they do much: a busy loop's wall time above its CPU time, and the load."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < 0.25:
        pass
    lost = 1 - (time.process_time() - cpu) / (time.perf_counter() - wall)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    if lost > 0.05 or load > 0.5 * cores + 1:
        return (
            f"the machine is busy: a thread got {1 - lost:.0%} of a core, load average {load:.1f} on {cores} cores; "
            "trust CPU time and ratios, not wall time"
        )
    return None


def memory_given_back(devices: Path = Path("/sys/bus/virtio/devices")) -> str | None:
    """Whether this is a virtual machine whose balloon reports free pages, so that its host may take them away."""
    for device in devices.glob("*"):
        try:
            is_balloon = (device / "device").read_text().strip() == "0x0005"
            gives_back = is_balloon and (device / "features").read_text()[5] == "1"
        except OSError:
            continue
        if gives_back:
            return (
                "this virtual machine gives free memory back to its host: while it comes again, large results may take "
                "several times as long, ours or a rival's"
            )
    return None
