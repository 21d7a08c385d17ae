"""Slots of models: never more taken than there are, and who waited longest is next."""

from __future__ import annotations

import asyncio
import threading

from bursar.runtime.routing.load import Slots


async def _waiting(slots: Slots, *models: str) -> asyncio.Task[str | None]:
    """A call that waits, and stands in line by now."""
    task = asyncio.create_task(slots.wait(dict.fromkeys(models, 1), None))
    await asyncio.sleep(0)
    return task


async def test_a_model_answers_no_more_calls_at_once_than_it_has_slots() -> None:
    slots = Slots()
    assert [slots.take("llama", 2) for _ in range(3)] == [True, True, False]
    slots.free("llama")
    assert slots.take("llama", 2)


async def test_a_free_slot_goes_to_whoever_waited_longest_and_not_to_a_newcomer() -> None:
    slots = Slots()
    assert slots.take("llama", 1)
    first, second = await _waiting(slots, "llama"), await _waiting(slots, "llama")
    slots.free("llama")
    assert not slots.take("llama", 1)
    assert await first == "llama"
    assert not second.done()
    slots.free("llama")
    assert await second == "llama"


async def test_who_waits_for_several_models_takes_the_first_that_is_free() -> None:
    slots = Slots()
    assert slots.take("llama", 1)
    assert slots.take("qwen", 1)
    either, llama = await _waiting(slots, "llama", "qwen"), await _waiting(slots, "llama")
    slots.free("qwen")
    assert await either == "qwen"
    slots.free("llama")
    assert await llama == "llama"


async def test_a_call_whose_time_is_over_leaves_the_line_and_takes_nothing() -> None:
    slots = Slots()
    assert slots.take("llama", 1)
    assert await slots.wait({"llama": 1}, 0.001) is None
    slots.free("llama")
    assert slots.take("llama", 1)


async def test_a_slot_that_was_handed_to_a_cancelled_call_goes_to_the_next() -> None:
    slots = Slots()
    assert slots.take("llama", 1)
    gone, next_ = await _waiting(slots, "llama"), await _waiting(slots, "llama")
    slots.free("llama")  # handed to the first, which is cancelled before it hears of it
    gone.cancel()
    assert await next_ == "llama"
    assert gone.cancelled()


async def test_slots_are_shared_by_event_loops_in_several_threads() -> None:
    """64 calls in four loops, three slots: never more than three at once, and all of them come to their turn."""
    slots, running, most, done = Slots(), 0, 0, 0
    lock = threading.Lock()

    async def call() -> None:
        nonlocal running, most, done
        if not slots.take("llama", 3):
            assert await slots.wait({"llama": 3}, None) == "llama"
        with lock:
            running += 1
            most = max(most, running)
        await asyncio.sleep(0)
        with lock:
            running -= 1
            done += 1
        slots.free("llama")

    async def many() -> None:
        await asyncio.gather(*(call() for _ in range(16)))

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, many()) for _ in range(4)))
    assert (done, running, slots.in_flight["llama"]) == (64, 0, 0)
    assert most <= 3
