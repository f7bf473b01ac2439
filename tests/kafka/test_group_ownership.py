"""Membership among the owners of a journal: each universe has one, and nobody fights for it."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiokafka.errors import NotCoordinatorForGroupError
from aiokafka.protocol.admin import DescribeGroupsRequest

from stream_calib.adapters.kafka import (
    GroupOwnership,
    GroupSettings,
    Instance,
    TopicSpec,
    ensure_topics,
)
from stream_calib.config import KafkaConfig
from stream_calib.errors import ConfigError, OwnershipError, TransportError

UNIVERSES = 6
SESSION_S = 2.0
LONG_SESSION_S = 12.0  # of which a busy machine does not stand still for a part that matters
DEADLINE_S = 60.0

Join = Callable[..., "contextlib.AbstractAsyncContextManager[GroupOwnership]"]


@pytest.fixture
async def join(kafka_bootstrap: str) -> Join:
    config = KafkaConfig(bootstrap_servers=kafka_bootstrap)
    name = f"owned-{uuid.uuid4().hex[:12]}"
    await ensure_topics(config, [TopicSpec(f"{name}.journal", UNIVERSES)])

    @contextlib.asynccontextmanager
    async def joined(
        instance: str | None = None,
        host: str = "here",
        *,
        local: bool = False,
        universes: int = UNIVERSES,
        session_s: float = SESSION_S,
    ) -> AsyncIterator[GroupOwnership]:
        settings = GroupSettings(
            f"{name}.owners", f"{name}.journal", universes, host, session_s, local=local
        )
        member = GroupOwnership(config, settings, Instance(None, instance))
        await member.start()
        try:
            yield member
        finally:
            await member.close()

    return joined


def held(member: GroupOwnership) -> set[int]:
    return {universe for universe in range(UNIVERSES) if member.holds(universe)}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  whoever changes it tells nobody
            await asyncio.sleep(0.02)


async def never_again(member: GroupOwnership) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            await member.changed()


async def test_one_worker_has_everything_and_may_own_it(join: Join) -> None:
    async with join("a") as alone:
        assert (alone.joined, alone.spare) == (False, False)
        await until(lambda: held(alone) == set(range(UNIVERSES)))
        assert (alone.joined, alone.spare) == (True, False)
        assert all([await alone.confirm(universe) for universe in range(UNIVERSES)])


async def test_three_workers_share_and_only_the_holder_may_own(join: Join) -> None:
    async with join("a") as a, join("b") as b, join("c") as c:
        workers = (a, b, c)
        await until(lambda: all(len(held(w)) == 2 for w in workers))
        assert held(a) | held(b) | held(c) == set(range(UNIVERSES))
        for universe in range(UNIVERSES):
            assert sum([await w.confirm(universe) for w in workers]) == 1


async def test_spare_worker_says_so_and_takes_over_at_once_from_one_that_leaves(
    join: Join,
) -> None:
    async with contextlib.AsyncExitStack() as others:
        workers = [
            await others.enter_async_context(join(f"w{i}", session_s=LONG_SESSION_S))
            for i in range(UNIVERSES)
        ]
        await until(lambda: all(len(held(w)) == 1 for w in workers))
        async with join("spare", session_s=LONG_SESSION_S) as spare:
            await until(lambda: spare.spare)
            assert not any([await spare.confirm(universe) for universe in range(UNIVERSES)])
            clock = asyncio.get_running_loop().time
            universe, left_s = held(workers[0]).pop(), clock()
            closing = asyncio.create_task(workers[0].close())
            await until(lambda: held(spare) == {universe})
            # the next sign of life of each of the others tells it; nobody waits for a session
            assert clock() - left_s < LONG_SESSION_S
            await closing


async def test_what_did_not_move_is_never_lost_from_sight(join: Join) -> None:
    async with join("a", session_s=LONG_SESSION_S) as first:
        await until(lambda: len(held(first)) == UNIVERSES)
        seen = []

        async def watch() -> None:
            while True:
                seen.append(held(first))
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        async with join("b", session_s=LONG_SESSION_S) as second:
            await until(lambda: len(held(second)) == UNIVERSES // 2)
            await until(lambda: len(held(first)) == UNIVERSES // 2)
        watching.cancel()
        assert all(held_then >= seen[-1] for held_then in seen)


async def test_restart_under_the_same_name_has_everything_back_at_once(join: Join) -> None:
    async with join("b", session_s=LONG_SESSION_S) as other:
        async with join("a", session_s=LONG_SESSION_S) as before:
            await until(lambda: len(held(before)) == len(held(other)) == 3)
            had = held(before)
            before._member = ""  # as if killed: it does not say good-bye
        clock = asyncio.get_running_loop().time
        started_s = clock()
        async with join("a", session_s=LONG_SESSION_S) as again:
            await until(lambda: held(again) == had)
            assert clock() - started_s < LONG_SESSION_S
        assert len(held(other)) >= 3


async def test_second_process_of_the_same_name_replaces_the_first_which_ends(join: Join) -> None:
    async with join("same") as first:
        await until(lambda: len(held(first)) == UNIVERSES)
        async with join("same") as second:
            with pytest.raises(OwnershipError, match=r"goes by the name 'same'.*ownership\.inst"):
                await never_again(first)
            await until(lambda: len(held(second)) == UNIVERSES)
            assert held(first) == set()
            assert not await first.confirm(0)
            await asyncio.sleep(2 * SESSION_S)  # nobody fights back
            assert await second.confirm(0)


async def test_workers_on_two_hosts_need_snapshots_that_both_can_read(join: Join) -> None:
    async with join("a", "first-host") as first:
        await until(lambda: len(held(first)) == UNIVERSES)
        async with join("b", "second-host", local=True) as second:
            with pytest.raises(ConfigError, match=r"^snapshots\.folder: .* first-host shares"):
                await never_again(second)
        async with join("c", "first-host", local=True) as third:
            await until(lambda: len(held(third)) == UNIVERSES // 2)


async def test_partitions_of_no_universe_do_not_count(join: Join) -> None:
    async with join("a", universes=1) as a, join("b", universes=1) as b:
        await until(lambda: a.joined and b.joined and held(a) | held(b) == {0})
        assert [a.spare, b.spare].count(True) == 1  # though each was given three partitions


async def test_what_was_moved_to_another_host_goes_on_there(join: Join) -> None:
    async with join("old", "old-host", local=True) as before:
        await until(lambda: len(held(before)) == UNIVERSES)
        before._member = ""  # as if killed: it does not say good-bye
    async with join("new", "new-host", local=True) as after:
        await until(lambda: len(held(after)) == UNIVERSES)
        await asyncio.sleep(2 * SESSION_S)
        assert after._failure is None
        assert await after.confirm(0)


async def test_group_that_may_not_be_joined_is_one_sentence(tmp_path: Path) -> None:
    config = KafkaConfig(bootstrap_servers="127.0.0.1:1", connect_timeout=1_000_000_000)
    member = GroupOwnership(
        config, GroupSettings("g", "t", 1, "here", SESSION_S), Instance(tmp_path)
    )
    with pytest.raises(TransportError, match=r"^Kafka at 127\.0\.0\.1:1 "):
        await member.start()
    await member.close()


def test_name_comes_back_after_a_restart_and_is_never_had_twice(tmp_path: Path) -> None:
    first, second = Instance(tmp_path / "a"), Instance(tmp_path / "a")
    elsewhere, given = Instance(tmp_path / "b"), Instance(tmp_path / "a", "given")
    for instance in (first, second, elsewhere, given):
        instance.take()
    names = [instance.name for instance in (first, second, elsewhere, given)]
    assert len(set(names)) == 4
    assert names[3] == "given"
    assert None not in names
    second.close()
    first.close()
    assert first.name is None
    again = Instance(tmp_path / "a")
    again.take()
    assert again.name == names[0]
    for instance in (elsewhere, again):
        instance.close()


def test_no_folder_to_write_in_means_no_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (None, tmp_path / "file" / "below"):
        instance = Instance(folder)
        instance.take()
        assert instance.name is None
        instance.close()


async def test_a_coordinator_that_has_just_moved_is_asked_again(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with join("a", "first-host") as first:
        await until(lambda: len(held(first)) == UNIVERSES)
        async with join("b", "second-host", local=True) as second:
            await until(lambda: len(held(second)) == UNIVERSES // 2)
            send, moved = second._coordinator._send_req, 0

            async def not_here(request: object) -> object:
                nonlocal moved
                answer = await send(request)
                if isinstance(request, DescribeGroupsRequest) and moved < 2:
                    moved += 1
                    answer.groups = [(NotCoordinatorForGroupError.errno, "", "", "", "", [])]
                return answer

            monkeypatch.setattr(second._coordinator, "_send_req", not_here)
            with pytest.raises(ConfigError, match="first-host shares"):
                await never_again(second)
            assert moved == 2
