"""Tasks in threads: order, news, memory, errors."""

from __future__ import annotations

import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.learners.protocol import OutOfDeviceMemoryError
from eravane.zoo import cluster
from eravane.zoo.cluster import MESSAGES, MOST_SENT, Reports, sent_together
from eravane.zoo.executor import run_tasks
from eravane.zoo.fleet import MemoryBudget, TaskControl


def test_every_task_comes_back_once_and_news_arrive_in_this_thread() -> None:
    here, news = threading.get_ident(), []

    def work(task: int, control: TaskControl) -> int:
        control.report((task, threading.get_ident()))
        return task * task

    def on_news(finished: tuple[int, int]) -> None:
        assert threading.get_ident() == here
        news.append(finished)

    found = dict(run_tasks(work, range(20), workers=3, on_news=on_news))
    assert found == {task: task * task for task in range(20)}
    assert sorted(task for task, _ in news) == list(range(20))
    assert here not in {thread for _, thread in news}


def test_the_first_error_stops_the_others() -> None:
    ended: list[bool] = []

    def work(task: int, control: TaskControl) -> None:
        if task == 0:
            raise ValueError("broken")
        while not control.is_set():
            time.sleep(0.001)
        ended.append(True)

    with pytest.raises(ValueError, match="broken"):
        list(run_tasks(work, range(50), workers=2))
    assert len(ended) <= 5  # those that ran beside the broken task; the others never started


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12), capacity=st.integers(1, 10))
def test_tasks_at_the_same_time_fit_into_the_room(sizes: list[int], capacity: int) -> None:
    held, most, guard = 0, 0, threading.Lock()

    def work(size: int, control: TaskControl) -> None:
        nonlocal held, most
        with guard:
            held += size
            most = max(most, held)
        time.sleep(0.0005)
        with guard:
            held -= size

    list(run_tasks(work, sizes, workers=4, size_of=lambda size: size, capacity=capacity))
    assert most <= max(capacity, max(sizes))  # one that is larger than the budget runs alone


def test_a_task_out_of_memory_is_tried_once_more_with_all_of_it() -> None:
    running, tries, guard = 0, 0, threading.Lock()

    def work(task: int, control: TaskControl) -> int:
        nonlocal running, tries
        with guard:
            running += 1
            beside, tries = running - 1, tries + (task == 0)
            first = task == 0 and tries == 1
        time.sleep(0.002)
        with guard:
            running -= 1
        if first:
            raise OutOfDeviceMemoryError("too little")
        if task == 0:
            assert beside == 0
        return task

    found = dict(run_tasks(work, range(6), workers=3, size_of=lambda task: 1, capacity=3))
    assert found == {task: task for task in range(6)}
    assert tries == 2


def test_what_the_first_try_held_is_free_before_the_second() -> None:
    """An error that is being handled keeps the frames it came from, and what they hold."""

    class Matrix:
        pass

    held, seen = list[weakref.ref[Matrix]](), list[bool]()

    def work(task: int, control: TaskControl) -> None:
        if held:
            seen.append(held[0]() is None)
            return
        matrix = Matrix()
        held.append(weakref.ref(matrix))
        raise OutOfDeviceMemoryError("too little")

    list(run_tasks(work, [0], workers=1, size_of=lambda task: 1, capacity=3))
    assert seen == [True]


def test_memory_that_is_never_enough_is_an_error() -> None:
    def work(task: int, control: TaskControl) -> None:
        raise OutOfDeviceMemoryError("needs 3 GB")

    with pytest.raises(OutOfDeviceMemoryError, match="3 GB"):
        list(run_tasks(work, [0], workers=1, size_of=lambda task: 1, capacity=3))


def test_room_is_given_back_after_an_error() -> None:
    budget = MemoryBudget(2)
    with pytest.raises(ValueError), budget.take(2):
        raise ValueError
    with budget.take(2):
        pass


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10**6).map(float), max_size=60), st.integers(1, 9))
def test_tasks_are_sent_together_as_much_to_every_worker(costs: list[float], workers: int) -> None:
    costs.sort(reverse=True)
    found = sent_together(costs, workers)
    assert sorted(number for message in found for number in message) == list(range(len(costs)))
    assert all(message == sorted(message) for message in found)
    assert len(found) <= workers * (MESSAGES + 1)
    least = sum(costs) / workers
    assert sum(costs) == 0 or max(len(message) for message in found) == 1 or len(found) >= min(workers, len(costs))
    for message in found:
        part = sum(costs[number] for number in message)
        assert len(message) == 1 or part <= least / MESSAGES * (1 + 1e-9) + costs[message[0]]


def test_messages_come_in_turn_and_hold_seconds_of_work() -> None:
    assert [len(message) for message in sent_together([1.0] * 160, 2)] == [10] * 16
    costs = [9.0, 7.0, *[1.0] * 100]
    found = sent_together(costs, 2)
    loads = [sum(costs[number] for message in found[worker::2] for number in message) for worker in range(2)]
    assert loads == [58.0, 58.0]
    assert found[:2] == [[0], [1]]
    assert [len(message) for message in sent_together([MOST_SENT / 4] * 400, 2)] == [4] * 100
    assert sent_together([MOST_SENT * 3] * 3, 2) == [[0], [1], [2]]


def test_reports_that_follow_each_other_quickly_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now, sent = [100.0], list[tuple[float, list[int]]]()
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    reports = Reports(lambda held: sent.append((now[0], held)))
    for number, at in enumerate((100.0, 100.1, 100.2, 100.25, 100.3, 101.0)):
        now[0] = at
        reports.add(number)
    reports.add(6)
    reports.ended(0.01)  # of a task
    assert sent == [(100.0, [0]), (100.25, [1, 2, 3]), (101.0, [4, 5])]
    reports.ended(600.0)  # the next may take as long
    reports.send()
    assert sent[3:] == [(101.0, [6])]
