"""Administration, usage and shared limits, on both kinds of databases."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from llm_backend.store import Database, Duplicate, Missing, UnknownCursor, Unstorable
from llm_backend.store.administration import (
    Administration,
    AuditedChange,
    AuditFilter,
    ConcurrencyLeases,
    DeferredUsageRow,
    DeferredUsageStore,
    Grants,
    LeaseChange,
    Record,
    StoredAnswer,
    StoredAnswers,
    StoredKey,
    StoredUsage,
    Tokens,
    UsageFilter,
    UsageKey,
)
from llm_backend.store.keyset_pages import PageRequest

CHANGE = AuditedChange(
    type="project.created", resource_id="x", project_id="proj_1", actor_id="key_1"
)


def record(id: str = "a", **more: object) -> Record:
    given = {"id": id, "kind": "project", "created_at": 1, "body": {"name": id}}
    return Record(**{**given, **more})


def key(id: str = "key_1", **more: object) -> StoredKey:
    given = {"id": id, "created_at": 1, "hash": id, "name": "n", "shown": "sk-***"}
    return StoredKey(**{**given, **more})


@pytest.fixture
def administration(database: Database) -> Administration:
    return Administration(database)


async def test_a_merged_record_keeps_what_the_change_does_not_name(administration):
    def merged(**more: int) -> Awaitable[Record]:
        return administration.merge(
            CHANGE, record(body=more), lambda one: record(body={**one.body, **more})
        )

    first = await merged(a=1)
    await asyncio.gather(*(merged(**{name: 2}) for name in "bcd"))

    assert first.body == {"a": 1}
    assert (await administration.get("project", "a")).body == {"a": 1, "b": 2, "c": 2, "d": 2}


async def test_concurrent_first_values_of_a_record_are_all_stored(administration):
    bodies = [{"name": str(number)} for number in range(8)]
    await asyncio.gather(*(administration.put(CHANGE, record(body=body)) for body in bodies))

    assert (await administration.get("project", "a")).body in bodies
    assert await administration.version() == len(bodies)


async def test_administration_stores_changes_and_deletes_a_record(administration):
    await administration.add(CHANGE, record())
    altered = await administration.alter(
        CHANGE, "project", "a", lambda one: record(body={**one.body, "more": 1})
    )

    assert altered == await administration.get("project", "a")
    with pytest.raises(Duplicate):
        await administration.add(CHANGE, record())
    await administration.put(CHANGE, record(body={}))
    assert (await administration.get("project", "a")).body == {}
    await administration.remove(CHANGE, "project", "a")
    with pytest.raises(Missing):
        await administration.get("project", "a")


@pytest.mark.parametrize("id", ["none", "a\x00b", "\udcff"])
async def test_unknown_id_is_missing_in_every_method(administration, id):
    with pytest.raises(Missing):
        await administration.get("project", id)
    with pytest.raises(Missing):
        await administration.key(id)
    with pytest.raises(UnknownCursor):
        await administration.find("project", PageRequest(after=id))


async def test_records_of_the_organization_and_of_projects_are_listed_separately(administration):
    await administration.add(CHANGE, record("a"))
    await administration.add(CHANGE, record("b", project_id="proj_1"))

    own = await administration.find("project", PageRequest())
    of_project = await administration.find("project", PageRequest(), project_id="proj_1")
    assert [[one.id for one in page.items] for page in (own, of_project)] == [["a"], ["b"]]


async def test_removing_a_record_deletes_records_with_its_prefix_and_its_keys(administration):
    await administration.add(CHANGE, record("u_1"), key(user_id="u_1"), key("key_2"))
    await administration.add(CHANGE, record("u_1@p", kind="member"))
    await administration.add(CHANGE, record("u%1@p", kind="member"))
    await administration.remove(CHANGE, "project", "u_1", and_ids_beginning="u_1@", user_id="u_1")

    known = await administration.load_snapshot(("project", "member"))
    assert [one.id for one in known.records] == ["u%1@p"]
    assert [one.id for one in known.keys] == ["key_2"]


async def test_record_is_not_added_to_a_deleted_one(administration):
    user, member = record("u_1", kind="user"), record("u_1@p", kind="member")
    await administration.add(CHANGE, user)
    await asyncio.gather(
        administration.remove(CHANGE, "user", "u_1", and_ids_beginning="u_1@"),
        administration.add(CHANGE, member, part_of=("user", "u_1")),
        return_exceptions=True,
    )
    with pytest.raises(Missing):
        await administration.add(CHANGE, member, part_of=("user", "u_1"))

    assert (await administration.load_snapshot(("user", "member"))).records == []


async def test_concurrent_changes_are_all_counted(administration):
    before = await administration.version()
    await asyncio.gather(*(administration.add(CHANGE, record(str(n))) for n in range(20)))

    assert await administration.version() == before + 20
    entries = await administration.audit_entries(
        AuditFilter(project_ids=["proj_1"]), PageRequest(limit=100)
    )
    assert len(entries.items) == 20


async def test_key_use_is_recorded_and_is_not_counted_as_a_change(administration):
    await administration.add_key(CHANGE, key())
    before = await administration.version()
    await administration.record_key_use({"key_1": 77, "key_gone": 1})

    assert (await administration.key("key_1")).last_used_at == 77
    assert await administration.version() == before


async def test_an_earlier_use_of_a_key_that_is_recorded_late_changes_nothing(administration):
    await administration.add_key(CHANGE, key())
    for used_at in (100, 50):
        await administration.record_key_use({"key_1": used_at})

    assert (await administration.key("key_1")).last_used_at == 100


async def test_usage_is_summed_by_bucket_and_group(database):
    usage = StoredUsage(database)
    keys = [
        UsageKey(minute * 60, "completions", project, "k", "", "m", "default", False, "")
        for minute in (0, 1, 61)
        for project in ("p", "q")
    ]
    for _ in range(2):
        await usage.add(dict.fromkeys(keys, (1, *Tokens(10, 4, 2), 0)))
    wanted = UsageFilter(
        start_at=0, end_at=7200, kinds=["completions"], allowed_values={"model": ["m"]}
    )

    hours = await usage.sums(wanted, width_s=3600, group_by=["project_id", "is_batch"])
    assert [(one.bucket_at, one.group, one.requests, one.tokens.input_tokens) for one in hours] == [
        (0, {"project_id": "p", "is_batch": False}, 4, 40),
        (0, {"project_id": "q", "is_batch": False}, 4, 40),
        (3600, {"project_id": "p", "is_batch": False}, 2, 20),
        (3600, {"project_id": "q", "is_batch": False}, 2, 20),
    ]
    (total,) = await usage.sums(wanted, width_s=1 << 40)
    assert (total.requests, total.tokens) == (12, Tokens(120, 48, 24))


async def test_old_usage_is_deleted_and_newer_usage_is_kept(database):
    usage = StoredUsage(database)
    days = [0, 1, 2, 3]
    for day in days:
        key = UsageKey(day * 86_400, "completions", "p", "k", "", "m", "default", False, "")
        await usage.add({key: (1, *Tokens(), 0)})
    await usage.expire(2 * 86_400)

    wanted = UsageFilter(start_at=0, end_at=1 << 40, kinds=["completions"], allowed_values={})
    left = await usage.sums(wanted, width_s=86_400)
    assert [one.bucket_at for one in left] == [2 * 86_400, 3 * 86_400]


async def test_grants_to_concurrent_servers_stay_within_the_limit(database):
    grants = Grants(database)
    given = await asyncio.gather(
        *(grants.take("m", 60, requested=7, limit=30) for _ in range(10)),
        grants.take("other", 60, requested=7, limit=30),
    )

    assert sum(given[:-1]) == 30
    assert given[-1] == 7
    assert await grants.take("m", 120, requested=7, limit=30) == 7


async def test_period_is_claimed_by_one_of_concurrent_servers(database):
    grants = Grants(database)
    claims = await asyncio.gather(*(grants.claim("alert", 60) for _ in range(10)))

    assert sum(claims) == 1
    assert await grants.claim("another alert", 60)
    assert await grants.claim("alert", 120)
    assert not await grants.claim("alert", 120)


def whole(body: bytes = b"\0\xff") -> StoredAnswer:
    return StoredAnswer(status=200, headers=[("x", "\xe9")], body=body)


async def claim(answers: StoredAnswers, name: str = "n", *, holder: str = "a", now: int = 0):
    return await answers.claim(name, digest="d", holder=holder, now=now, until=now + 10)


async def test_stored_answer_is_claimed_by_one_holder_and_found_by_all(database):
    answers = StoredAnswers(database)
    claims = await asyncio.gather(*(claim(answers, holder=str(one)) for one in range(10)))
    maker = str(next(number for number, found in enumerate(claims) if found is None))
    await answers.store("n", holder="another", answer=whole(b"no"), until=50)
    await answers.store("n", holder=maker, answer=whole(), until=50)

    assert sum(found is None for found in claims) == 1
    found = await claim(answers)
    assert found is not None
    assert (found.digest, found.answer) == ("d", whole())
    assert await claim(answers, now=50) is None


async def test_only_the_holder_releases_a_claimed_answer(database):
    answers = StoredAnswers(database)
    await claim(answers)
    await answers.free("n", holder="another")

    assert await claim(answers, holder="b") is not None
    await answers.free("n", holder="a")
    assert await claim(answers, holder="b") is None


async def test_expired_answers_and_the_oldest_over_the_limit_are_deleted(database):
    answers = StoredAnswers(database)
    for number, name in enumerate("abcd"):
        await claim(answers, name)
        await answers.store(name, holder="a", answer=whole(bytes(10)), until=100 + number)
    await claim(answers, "e", now=100)
    await answers.expire(now=100, limit_bytes=30)

    found = [await claim(answers, name, now=100, holder="b") for name in "abcde"]
    assert [one is None for one in found] == [True, False, False, False, False]
    await answers.expire(now=100, limit_bytes=29)
    found = [await claim(answers, name, now=100, holder="c") for name in "bcde"]
    assert [one is None for one in found] == [True, False, False, False]


async def test_concurrency_leases_of_all_holders_stay_within_the_limit(database):
    leases = ConcurrencyLeases(database)

    async def take(holder: int, wanted: int, *, scope: str = "k", now: int = 0) -> int:
        one = LeaseChange(scope=scope, requested=wanted, limit=30)
        taken = await leases.apply([one], holder=str(holder), now=now, until=now + 10)
        return taken[scope]

    given = await asyncio.gather(*(take(one, 7) for one in range(9)), take(0, 7, scope="other"))
    first = given.index(7)

    assert sum(given[:-1]) == 30
    assert given[-1] == 7
    back = LeaseChange(scope="k", returned=2, requested=1, limit=30)
    assert await leases.apply([back], holder=str(first), now=0, until=10) == {"k": 1}
    assert await take(20, 7) == 1
    assert await take(21, 40, now=10) == 30
    await leases.release_all("21")
    await leases.delete_expired(now=10)
    assert await take(22, 40, now=10) == 30


async def test_concurrency_leases_of_many_scopes_do_not_deadlock(database):
    leases = ConcurrencyLeases(database)
    scopes = [LeaseChange(scope=f"k{one}", requested=1, limit=100) for one in range(5)]
    async with asyncio.timeout(30):  # a deadlock takes a second to be found
        await asyncio.gather(
            *(
                leases.apply(scopes[:: (-1) ** one], holder=str(one), now=0, until=10)
                for one in range(40)
            )
        )
        one_more = LeaseChange(scope="k0", requested=100, limit=100)
        left = await leases.apply([one_more], holder="last", now=0, until=10)

    assert left == {"k0": 60}


def usage_row(id: str, minute_at: int = 60, **more: int) -> DeferredUsageRow:
    key = UsageKey(minute_at, "completions", "proj_1", "key_1", "", "m", "default", False, "")
    return DeferredUsageRow(id=id, key=key, **more)


REPORTED = Tokens(input_tokens=100, cached_tokens=90, output_tokens=50)


async def sums_of(database: Database) -> list[tuple[int, int, int, int, int]]:
    wanted = UsageFilter(start_at=0, end_at=6000, kinds=["completions"], allowed_values={})
    sums = await StoredUsage(database).sums(wanted, width_s=60)
    return [(one.bucket_at, one.requests, *one.tokens[:3]) for one in sums]


async def test_deferred_usage_counts_once_in_the_minute_of_its_report(database):
    deferred = DeferredUsageStore(database)
    await deferred.add(usage_row("resp_1"))
    await deferred.add(usage_row("resp_1"))

    known = [await deferred.charge("resp_1", REPORTED, minute_at=120) for _ in range(2)]
    assert known == [True, False]
    assert not await deferred.charge("resp_2", REPORTED, minute_at=120)
    assert await sums_of(database) == [(120, 0, 100, 90, 50)]


async def test_deferred_usage_counts_only_the_uncounted_part(database):
    deferred = DeferredUsageStore(database)
    await deferred.add(usage_row("resp_1", input_tokens=30, output_tokens=60))

    await deferred.charge("resp_1", REPORTED, minute_at=120)

    assert await sums_of(database) == [(120, 0, 70, 70, 0)]


async def test_deferred_usage_is_deleted_when_too_old_or_over_the_limit(database):
    deferred = DeferredUsageStore(database)
    for number in range(5):
        await deferred.add(usage_row(f"resp_{number}", 60 * number))
    await deferred.delete_old(before=60, limit=2)

    known = [await deferred.charge(f"resp_{number}", REPORTED, minute_at=0) for number in range(5)]
    assert known == [False, False, False, True, True]


async def test_deferred_usage_of_one_minute_is_deleted_over_the_limit_only(database):
    deferred = DeferredUsageStore(database)
    for number in range(5):
        await deferred.add(usage_row(f"resp_{number}"))
    await deferred.delete_old(before=0, limit=3)

    known = [await deferred.charge(f"resp_{number}", REPORTED, minute_at=0) for number in range(5)]
    assert known.count(True) == 3


@pytest.mark.parametrize("id", ["a\x00b", "\udcff"])
async def test_deferred_usage_refuses_an_unstorable_id(database, id):
    with pytest.raises(Unstorable):
        await DeferredUsageStore(database).add(usage_row(id))
    with pytest.raises(Unstorable):
        await DeferredUsageStore(database).charge(id, REPORTED, minute_at=0)


async def test_only_old_entries_of_the_audit_log_are_deleted(database):
    for at in (100, 200, 300):
        administration = Administration(database, clock=lambda at=at: at)
        await administration.add(replace(CHANGE, resource_id=f"p{at}"), record(f"p{at}"))
    version = await administration.version()

    await administration.delete_audit_entries(before=300)

    page = await administration.audit_entries(AuditFilter(), PageRequest(limit=10))
    assert [entry.resource_id for entry in page.items] == ["p300"]
    assert await administration.version() == version
