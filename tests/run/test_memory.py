"""A budget that jobs share; and an imitated /proc and /sys: what control groups of each version leave free."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from artifacts.run.memory import MemoryBudget, free_bytes, free_in_groups, kernel_kills


def most_at_once(budget: MemoryBudget, needs: list[int | None]) -> tuple[int, int]:
    """Run a job for each need, all at once. Return the most jobs together, and their most bytes."""
    lock = threading.Lock()
    running: list[int] = []
    most = [0, 0]

    def job(need: int | None) -> None:
        with budget.reserve(need):
            with lock:
                running.append(need or 0)
                most[0] = max(most[0], len(running))
                most[1] = max(most[1], sum(running))
            time.sleep(0.02)
            with lock:
                running.remove(need or 0)

    threads = [threading.Thread(target=job, args=(need,)) for need in needs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive(), "a job waits for ever"
    return most[0], most[1]


def test_jobs_run_together_as_far_as_their_memory_fits() -> None:
    count, together = most_at_once(MemoryBudget(100), [40] * 6)
    assert (count, together) == (2, 80)


def test_different_jobs_never_exceed_the_budget_together() -> None:
    _, together = most_at_once(MemoryBudget(100), [10, 90, 50, 50, 30, 70, 20, 100, 1] * 2)
    assert together <= 100


@pytest.mark.parametrize("need", [None, 500])
def test_a_job_of_unknown_need_or_larger_than_everything_runs_alone(need: int | None) -> None:
    count, _ = most_at_once(MemoryBudget(100), [need, 1, 1, need, 1])
    assert count <= 3
    count, _ = most_at_once(MemoryBudget(100), [need] * 4)
    assert count == 1


@pytest.mark.parametrize("total", [0, -5])
def test_where_nothing_is_free_jobs_run_one_by_one(total: int) -> None:
    assert most_at_once(MemoryBudget(total), [10, None, 10])[0] == 1


def test_a_job_that_fails_gives_its_memory_back() -> None:
    budget = MemoryBudget(100)
    for _ in range(3):
        with pytest.raises(RuntimeError), budget.reserve(100):
            raise RuntimeError
    assert most_at_once(budget, [100])[0] == 1


def test_this_machine_has_some_memory_free() -> None:
    assert 1 << 20 < free_bytes() < 1 << 50


GIB = 1 << 30
UNLIMITED_V1 = 9223372036854771712


class Machine:
    """A folder that looks like /proc and /sys/fs/cgroup."""

    def __init__(self, root: Path) -> None:
        self.proc, self.mounted = root / "proc", root / "mounted"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "vmstat").write_text("nr_free_pages 5\noom_kill 3\n")

    def mount(self, kind: str, root: str, membership: str, options: str = "rw") -> None:
        """Mount the groups below `root`, and make this process a member."""
        line = f"31 23 0:28 {root} {self.mounted} rw,relatime shared:5 - {kind} {kind} {options}\n"
        (self.proc / "self" / "mountinfo").write_text(f"30 23 0:27 / / rw - ext4 /dev/vda rw\n{line}")
        (self.proc / "self" / "cgroup").write_text(membership)

    def group(self, path: str, **files: str) -> None:
        """Make a group; `__` in a name stands for a dot."""
        folder = self.mounted / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with no groups yet."""
    return Machine(tmp_path)


def test_the_tightest_group_of_version_2_binds(machine: Machine) -> None:
    machine.mount("cgroup2", "/", "0::/slice/job\n")
    machine.group(".", memory__stat="inactive_file 5\n")
    machine.group("slice", memory__max=str(4 * GIB), memory__current=str(3 * GIB), memory__stat="inactive_file 0\n")
    machine.group("slice/job", memory__max="max\n", memory__current="5\n", memory__stat="inactive_file 0\n")
    assert free_in_groups(machine.proc) == GIB


def test_reclaimable_pages_of_files_count_as_free(machine: Machine) -> None:
    machine.mount("cgroup2", "/", "0::/\n")
    machine.group(".", memory__max=str(4 * GIB), memory__current=str(3 * GIB), memory__stat=f"inactive_file {GIB}\n")
    assert free_in_groups(machine.proc) == 2 * GIB


def test_groups_of_version_1_bind_too(machine: Machine) -> None:
    machine.mount("cgroup", "/", "9:name=systemd:/\n4:cpu,memory:/docker/job\n0::/\n", "rw,memory")
    group = {"memory__usage_in_bytes": str(GIB), "memory__stat": "inactive_file 7\ntotal_inactive_file 4096\n"}
    machine.group(".", memory__limit_in_bytes=str(UNLIMITED_V1), **group)
    machine.group("docker/job", memory__limit_in_bytes=str(2 * GIB), **group)
    assert free_in_groups(machine.proc) == GIB + 4096


def test_a_container_sees_its_own_group_as_the_root(machine: Machine) -> None:
    machine.mount("cgroup", "/docker/job", "4:memory:/docker/job\n", "rw,memory")
    machine.group(".", memory__limit_in_bytes=str(2 * GIB), memory__usage_in_bytes="0", memory__stat="")
    assert free_in_groups(machine.proc) == 2 * GIB
    machine.mount("cgroup", "/", "4:memory:/seen/from/outside\n", "rw,memory")
    assert free_in_groups(machine.proc) == 2 * GIB


def test_a_hierarchy_without_memory_is_not_read(machine: Machine) -> None:
    machine.mount("cgroup", "/", "4:cpu:/\n", "rw,cpu")
    machine.group(".", memory__limit_in_bytes="5", memory__usage_in_bytes="0", memory__stat="")
    assert free_in_groups(machine.proc) is None


def test_no_groups_are_no_limit(machine: Machine) -> None:
    assert free_in_groups(machine.proc) is None
    machine.mount("cgroup2", "/", "0::/\n")
    machine.group(".", memory__max="max", memory__current="1")
    assert free_in_groups(machine.proc) is None


@pytest.mark.parametrize(
    ("kind", "membership", "file", "text"),
    [
        ("cgroup2", "0::/job\n", "memory__events", "low 0\noom 9\noom_kill 2\n"),
        ("cgroup", "4:memory:/job\n", "memory__oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_kills_are_counted_on_the_machine_and_in_the_group(
    machine: Machine, kind: str, membership: str, file: str, text: str
) -> None:
    assert kernel_kills(machine.proc) == 3
    machine.mount(kind, "/", membership, "rw,memory")
    machine.group("job", **{file: text})
    assert kernel_kills(machine.proc) == 5
