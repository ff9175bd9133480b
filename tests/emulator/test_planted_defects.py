"""Every planted defect (planted_*.cu) is found by the builds that this table names, and a control by none."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from planted import SCHEDULES, program, run

FORWARD = "forward 0 lazy"
EAGER = tuple(schedule for schedule in SCHEDULES if schedule.endswith("eager"))
IN_ORDER = tuple(schedule for schedule in SCHEDULES if schedule.startswith("forward"))


@dataclass(frozen=True)
class Found:
    """What each build must print, a regular expression; "right": it sees nothing; None: anything may happen."""

    plain: str | None = "right"  # without sanitizers, in every schedule
    address: str | None = "right"
    thread: str | None = "right"
    hidden: tuple[str, ...] = ()  # schedules in which the plain build sees nothing


def out_of_bounds(report: str) -> Found:
    return Found(plain=None, address=report, thread=None)


def everywhere(report: str, hidden: tuple[str, ...] = ()) -> Found:
    return Found(report, report, report, hidden)


def race(kernel: str, plain: str = "right", hidden: tuple[str, ...] = ()) -> Found:
    return Found(
        plain, plain if FORWARD not in hidden else "right", f"SUMMARY: ThreadSanitizer: data race .* {kernel}", hidden
    )


DEFECTS = {
    # Memory
    "global_write": out_of_bounds(r"heap-buffer-overflow.*WRITE of size 4.* write_past_end .*planted_\w+\.cu:\d+"),
    "global_read": out_of_bounds(r"heap-buffer-overflow.*READ of size 4.* read_next .*planted_\w+\.cu:\d+"),
    "shared_write": out_of_bounds(r"planted_\w+\.cu:\d+.*index 256 out of bounds for type 'double \[256\]'"),
    "shared_row_write": out_of_bounds(r"index 32 out of bounds for type 'float \[32\]'"),
    "dynamic_shared_write": out_of_bounds(r"heap-buffer-overflow.* write_past_dynamic "),
    "local_write": out_of_bounds(r"index 4 out of bounds for type 'float \[4\]'"),
    "constant_read": out_of_bounds(r"index 4 out of bounds for type 'const float \[4\]'|'float \[4\]'"),
    "copy_source": out_of_bounds(r"heap-buffer-overflow.*READ of size 1.*cp_async<16>.* copy_all "),
    "misaligned_load": Found(address=r"misaligned address .* requires 16 byte alignment"),
    "stack_overflow": Found("signal 11", "AddressSanitizer: stack-overflow", "ThreadSanitizer: (stack-overflow|SEGV)"),
    "integer_overflow": Found(plain=None, address=r"signed integer overflow: 50000 \* 50000", thread=None),
    "nan_to_integer": Found("wrong", "nan is outside the range of representable values of type 'int'", "wrong"),
    "uninitialised_shared": everywhere("element 255 is -nan"),
    "uninitialised_counter": everywhere("wrong"),
    # Synchronisation
    "missing_barrier": race("mirror_unsynchronised", "wrong"),
    "missing_barrier_in_order": race("shift_unsynchronised", "wrong", hidden=IN_ORDER),
    "missing_barrier_in_loop": race("overwrite_unsynchronised", "wrong"),
    "missing_syncwarp": race("exchange_unsynchronised", "wrong"),
    "missing_barrier_after_wait": race("", "wrong"),
    "shuffle_as_barrier": race("shuffle_for_barrier"),
    "race_within_block": race("add_plainly"),
    "race_between_blocks": race("add_plainly_per_block"),
    "missing_fence_before": race("signal"),
    "missing_fence_after": race("signal"),
    "missing_wait": everywhere("element 0 is -nan", hidden=EAGER),
    "missing_commit": everywhere("element 0 is -nan", hidden=EAGER),
    # Control flow
    "divergent_barrier": everywhere(
        r"divergent barrier: this thread is at planted_\w+\.cu:\d+, thread \(\d+,0,0\) waits at planted_"
    ),
    "deadlock": everywhere(
        r"deadlock in block \(0,0,0\):\n"
        r"  40 thread\(s\) wait in __syncthreads at planted_\w+\.cu:\d+, threads 0-39\n"
        r"  24 thread\(s\) wait in __shfl_sync at planted_\w+\.cu:\d+ \(warp 1, mask 0xffffffff\), threads 40-63\n"
        r"  64 thread\(s\) have returned"
    ),
    "divergent_warp": everywhere(r"divergent warp operation: lane \d+ executes __\w+ at .* lane \d+ executes __\w+ at"),
    "different_masks": everywhere(r"divergent warp operation: .*executes __syncwarp at planted_"),
    "not_in_own_mask": everywhere(r"__shfl_sync: the calling lane \d+ is not in its own mask \[planted_\w+\.cu:\d+"),
    "partial_mma": everywhere(r"mma bf16 needs all 32 lanes of the warp, only those of 0xffff came \[planted_"),
    "endless_spin": everywhere(r"livelock: threads only spin on atomics \[planted_\w+\.cu:\d+, block \(0,0,0\) thread"),
    # Controls
    "fences": Found(),
    "spin": Found(),
    "half_warp": Found(),
}


def test_every_defect_is_in_the_table() -> None:
    assert set(run("plain", "list", "").split()) == set(DEFECTS)
    assert program("plain").is_file()


def assert_found(variant: str, case: str, schedule: str, expected: str) -> None:
    outcome = run(variant, case, schedule)
    if expected == "right":
        assert outcome == "right", f"{variant}, {schedule}: {outcome}"
    else:
        assert re.search(expected, outcome, re.DOTALL), f"{variant}, {schedule}: expected {expected}, got: {outcome}"


@pytest.mark.parametrize("case", [case for case, found in DEFECTS.items() if found.plain])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_thread_order_finds(case: str, schedule: str) -> None:
    found = DEFECTS[case]
    assert_found("plain", case, schedule, "right" if schedule in found.hidden else found.plain or "")


@pytest.mark.parametrize("case", [case for case, found in DEFECTS.items() if found.address])
def test_address_sanitizer_finds(case: str) -> None:
    assert_found("address", case, FORWARD, DEFECTS[case].address or "")


@pytest.mark.parametrize("case", [case for case, found in DEFECTS.items() if found.thread])
def test_thread_sanitizer_finds(case: str) -> None:
    assert_found("thread", case, FORWARD, DEFECTS[case].thread or "")


@pytest.mark.parametrize("case", ["divergent_barrier", "deadlock"])
def test_message_names_the_line(case: str) -> None:
    source = (Path(__file__).parent / "planted_control_flow.cu").read_text().splitlines()
    lines = [int(number) for number in re.findall(r"planted_control_flow\.cu:(\d+)", run("plain", case, FORWARD))]
    assert len(lines) >= 2
    assert all("__syncthreads" in source[n - 1] or "__shfl_sync" in source[n - 1] for n in lines)
