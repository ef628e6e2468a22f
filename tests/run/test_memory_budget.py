from __future__ import annotations

import threading
import time

import pytest

from artifacts.run.memory_budget import MemoryBudget, free_bytes


def most_at_once(budget: MemoryBudget, needs: list[int | None]) -> tuple[int, int]:
    """Runs a job for each need, all at once. Returns the most that ran together and the most bytes they declared."""
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
