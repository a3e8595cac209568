import itertools

from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.media_runs import Part, Run
from llm_backend.engine.messages import Priority
from llm_backend.engine.messages.address import Address
from llm_backend.engine.scheduling.prefill_budget import PrefillLimits
from llm_backend.engine.scheduling.scheduler import Scheduler
from llm_backend.engine.sequence import ScheduledTokens, Sequence
from tests.engine.fakes import image


def scheduler(
    *, slots: int = 4, batch_tokens: int = 8, kv_unified: bool = True, **options: object
) -> Scheduler:
    cache = Cache(slots=slots, kv_unified=kv_unified)
    return Scheduler(cache=cache, batch_tokens=batch_tokens, **options)


UNIQUE = itertools.count(1 << 30)


def sequence(length: int, *, of: str = "", first: int = 0, arrived_at: float = 0, **fields):
    """A sequence whose prompt is unlike any other unless `first` is given."""
    unique = first or next(UNIQUE)
    tokens = [unique, *range(length - 1)]
    request = Address(1, of or str(unique))
    max_length = length + 100
    return Sequence(
        request=request,
        index=0,
        tokens=tokens,
        max_length=max_length,
        arrived_at=arrived_at,
        **fields,
    )


def prefixed(leader: Sequence, shared: int, length: int) -> Sequence:
    """A sequence that begins as another one does, and goes on by itself."""
    incoming = sequence(length, arrived_at=1)
    incoming.tokens[:0] = leader.tokens[:shared]
    incoming.prompt_tokens = len(incoming.tokens)
    return incoming


def imaged(count: int) -> Sequence:
    """A sequence with an image of `count` tokens after its first token."""
    run = Run(
        media=image(), number=0, part_index=0, part=Part(count=count, positions=count), start=1
    )
    return sequence(count + 2, runs=(run,))


def test_shifted_sequence_keeps_its_beginning_and_the_newest_tokens_and_waits_again():
    one = scheduler(slots=1)
    shifted = sequence(10, context_tokens=12, n_keep=2)
    caught_up(one, shifted)
    shifted.append(98)
    before = list(shifted.tokens)
    one.shift(shifted)

    assert len(before) == 12
    assert shifted.tokens == before[:2] + before[-4:]
    assert (shifted.generated, shifted.room) == (2, 6)
    assert (shifted.slot, shifted.computed) == (None, 0)
    one.admit()
    assert shifted.computed == 2  # of its own slot's cells


def caught_up(scheduler: Scheduler, *sequences: Sequence) -> None:
    """Runs sequences until each has one uncomputed token."""
    scheduler.add(*sequences)
    while any(item.uncomputed_tokens != 1 or item.generated == 0 for item in sequences):
        scheduler.admit()
        seen = scheduler.plan_media()
        for ready in scheduler.complete_pass([seen] if seen else scheduler.plan()):
            ready.append(-len(ready.tokens))


def evicted_slot(scheduler: Scheduler) -> int | None:
    evicted = scheduler.evict_or_preempt()
    return None if evicted is None else evicted.slot


def test_scheduler_prefill_does_not_stall_decoding_sequences():
    loop = scheduler(slots=2)
    target, incoming = sequence(5), sequence(1000)
    caught_up(loop, target)
    loop.add(incoming)
    loop.admit()

    assert loop.plan() == [ScheduledTokens(target, 1), ScheduledTokens(incoming, 7)]


def test_scheduler_pass_never_exceeds_its_budget():
    loop = scheduler(slots=4, batch_tokens=10)
    loop.add(*(sequence(11) for _ in range(4)))
    loop.admit()

    assert sum(item.count for item in loop.plan()) == 10


def test_scheduler_delays_prompts_once_half_a_budget_completes_its_prefill():
    loop = scheduler(slots=4, batch_tokens=40, kv_unified=False)
    readers = [sequence(10, arrived_at=arrival) for arrival in range(4)]
    loop.add(*readers)
    loop.admit()
    first = loop.plan()
    for ready in loop.complete_pass(first):
        ready.append(-1)

    assert first == [ScheduledTokens(one, 10) for one in readers[:2]]
    assert [item.count for item in loop.plan()] == [1, 1, 10, 10]


def test_scheduler_gives_a_decoding_sequence_with_a_few_uncomputed_tokens_one_a_pass():
    loop = scheduler(slots=4, batch_tokens=40, kv_unified=False)
    targets = [sequence(3) for _ in range(4)]
    caught_up(loop, *targets)
    for token in (1, 2):
        targets[0].append(token)
    first = loop.plan()
    loop.complete_pass(first)

    assert [item.count for item in first] == [1, 1, 1, 1]
    assert targets[0].uncomputed_tokens == 2


def test_scheduler_computes_many_forced_tokens_at_once():
    loop = scheduler(slots=4, batch_tokens=40, kv_unified=False)
    targets = [sequence(3) for _ in range(2)]
    caught_up(loop, *targets)
    for token in (1, 2):
        targets[0].append(token)

    assert [item.count for item in loop.plan()] == [3, 1]


def test_scheduler_gives_incomplete_prompts_the_whole_budget():
    loop = scheduler(slots=2, batch_tokens=40)
    short, long = sequence(10, arrived_at=1), sequence(1000, arrived_at=2)
    loop.add(short, long)
    loop.admit()

    assert loop.plan() == [ScheduledTokens(short, 10), ScheduledTokens(long, 30)]


def test_scheduler_fills_the_pass_with_prompts_if_large_passes_are_cheaper():
    loop = scheduler(slots=4, batch_tokens=40)
    loop.add(*(sequence(10) for _ in range(4)))
    loop.admit()

    assert [item.count for item in loop.plan()] == [10, 10, 10, 10]


def test_scheduler_continues_batch_prefill_though_enough_prompts_complete():
    loop = scheduler(slots=4, batch_tokens=40, kv_unified=False)
    people = [sequence(10, arrived_at=arrival) for arrival in range(3)]
    job = batch(1000, arrived_at=9)
    loop.add(*people, job)
    loop.admit()

    assert [item.count for item in loop.plan(PrefillLimits(batch=8))] == [10, 10, 8]


def test_scheduler_delays_no_decoding_sequence_for_completing_prompts():
    loop = scheduler(slots=4, batch_tokens=60, kv_unified=False)
    target, *incoming_sequences = sequence(3), *(sequence(15, arrived_at=1) for _ in range(3))
    caught_up(loop, target)
    for token in range(20):
        target.append(token)
    loop.add(*incoming_sequences)
    loop.admit()

    assert {item.sequence: item.count for item in loop.plan()}[target] == 21


def test_scheduler_admits_short_prompts_beside_a_long_one():
    loop = scheduler(slots=8, batch_tokens=40, kv_unified=False)
    leader = sequence(100, first=1)
    caught_up(loop, leader)
    long, *short = prefixed(leader, 90, 500), *(prefixed(leader, 90, 5) for _ in range(3))
    loop.add(long, *short)

    assert len(loop.admit()) == 4


def test_scheduler_copies_cells_for_few_long_prompts_at_once():
    loop = scheduler(slots=8, batch_tokens=40, kv_unified=False)
    leader = sequence(100, first=1)
    caught_up(loop, leader)
    loop.add(*(prefixed(leader, 90, 500) for _ in range(5)))

    assert len(loop.admit()) == 2


def test_scheduler_computes_a_preempted_image_again_beside_others():
    loop = scheduler(slots=8, batch_tokens=40, kv_unified=False)
    targets = [sequence(3) for _ in range(6)]
    viewer = imaged(2)
    caught_up(loop, *targets, viewer)
    loop.restart(viewer)
    loop.complete_pass(loop.plan())  # the token before the image

    assert viewer.next_run is not None
    assert viewer not in [item.sequence for item in loop.plan()]


def test_scheduler_copies_cells_for_prompts_that_complete_in_the_next_pass():
    loop = scheduler(slots=8, batch_tokens=40, kv_unified=False)
    leader = sequence(100, first=1)
    caught_up(loop, leader)
    followers = [prefixed(leader, 90, 10) for _ in range(5)]
    loop.add(*followers)
    admitted = []
    while any(one.slot is None for one in followers):
        admitted.append([one.sequence for one in loop.admit()])
        computed(loop, passes=1)

    assert admitted == [followers[:2], followers[2:4], followers[4:]]


def test_scheduler_admits_sequences_without_copies_at_once():
    loop = scheduler(slots=8, batch_tokens=40)
    loop.add(*(sequence(30) for _ in range(8)))

    assert len(loop.admit()) == 8


def test_scheduler_prefers_short_prompts_but_reserves_a_quarter_for_the_oldest():
    loop = scheduler(batch_tokens=8)
    long, short = sequence(1000, arrived_at=1), sequence(6, arrived_at=2)
    loop.add(long, short)
    loop.admit()

    assert loop.plan() == [ScheduledTokens(long, 2), ScheduledTokens(short, 6)]


def test_scheduler_gives_every_slot_a_token():
    loop = scheduler(slots=4, batch_tokens=1)
    caught_up(loop, *(sequence(2) for _ in range(4)))

    assert [item.count for item in loop.plan()] == [1, 1, 1, 1]


def test_scheduler_shares_slots_between_requests_with_many_answers():
    loop = scheduler(slots=2)
    many = [sequence(3, of="many") for _ in range(4)]
    other = sequence(3, of="other")
    loop.add(*many, other)

    assert [admitted.sequence for admitted in loop.admit()] == [many[0], other]


def test_waiting_queue_sequence_waits_for_a_prefix_in_computation():
    loop = scheduler(slots=2, batch_tokens=8)
    leader, follower = sequence(20, first=1), sequence(20, first=1)
    loop.add(leader, follower)

    assert [admitted.sequence for admitted in loop.admit()] == [leader]
    for _ in range(3):
        assert not loop.admit()
        loop.complete_pass(loop.plan())
    (admitted,) = loop.admit()
    assert admitted.sequence is follower
    assert [copy.source for copy in admitted.allocation.copies] == [leader.slot]
    assert follower.cached_tokens == 19


def test_waiting_queue_sequence_does_not_wait_for_a_removed_leader():
    loop = scheduler(slots=2, batch_tokens=8)
    leader, follower = sequence(20, first=1), sequence(20, first=1)
    loop.add(leader, follower)
    loop.admit()
    loop.complete_pass(loop.plan())
    loop.remove(leader)

    (admitted,) = loop.admit()
    assert admitted.sequence is follower
    assert follower.cached_tokens == 8


def test_waiting_queue_admits_others_before_a_sequence_that_waits_for_a_prefix():
    loop = scheduler(slots=2)
    leader, follower, other = sequence(20, first=1), sequence(20, first=1), sequence(3)
    loop.add(leader, follower, other)

    assert [admitted.sequence for admitted in loop.admit()] == [leader, other]


def test_scheduler_bounds_prompt_logits_of_a_pass():
    loop = scheduler(slots=2, batch_tokens=64, logit_rows=4)
    scored = [sequence(30, logits_from=0) for _ in range(2)]
    loop.add(*scored)
    loop.admit()
    outputs = []
    while any(item.uncomputed_tokens for item in scored):
        work = loop.plan()
        outputs += [position for item in work for position in item.output_positions]
        assert sum(len(item.output_positions) for item in work) <= 4 + 2
        loop.complete_pass(work)

    assert sorted(outputs) == sorted([*range(30)] * 2)


def test_scheduler_preempts_and_readmits_the_newest_sequence_when_cells_are_exhausted():
    loop = scheduler(slots=2)
    old, new = sequence(4, arrived_at=1), sequence(4, arrived_at=2)
    caught_up(loop, old, new)

    assert evicted_slot(loop) == 1
    assert (new.slot, new.computed) == (None, 0)
    assert not loop.admit()
    loop.remove(old)
    assert [admitted.sequence for admitted in loop.admit()] == [new]


def test_scheduler_evicts_cached_prefixes_before_it_preempts():
    loop = scheduler(slots=2)
    finished, running = sequence(4), sequence(4)
    caught_up(loop, finished, running)
    loop.remove(finished)

    assert evicted_slot(loop) == 0
    assert running.slot == 1
    assert evicted_slot(loop) is None


def batch(length: int, **fields):
    return sequence(length, priority=Priority.BATCH, **fields)


def computed(loop: Scheduler, passes: int) -> None:
    """Computes `passes`, in which every sequence continues to decode."""
    for _ in range(passes):
        for ready in loop.complete_pass(loop.plan()):
            ready.append(-len(ready.tokens))


def test_scheduler_admits_interactive_before_batch_sequences():
    loop = scheduler(slots=1)
    job, person = batch(3, arrived_at=1), sequence(3, arrived_at=2)
    loop.add(job, person)

    assert [admitted.sequence for admitted in loop.admit()] == [person]


def test_scheduler_prefills_interactive_before_batch_prompts():
    loop = scheduler(batch_tokens=8)
    oldest, job, person = sequence(1000), batch(3, arrived_at=1), sequence(6, arrived_at=2)
    loop.add(oldest, job, person)
    loop.admit()

    assert loop.plan() == [ScheduledTokens(oldest, 2), ScheduledTokens(person, 6)]


def long_prompt_chunks(loop, limits, passes):
    """The tokens of the longest prompt in each of `passes`, beside decoding sequences."""
    chunks = []
    for _ in range(passes):
        work = loop.plan(limits)
        chunks.append(sum(item.count for item in work if item.sequence.prompt_tokens > 500))
        for ready in loop.complete_pass(work):
            ready.append(-len(ready.tokens))
    return chunks


def test_scheduler_leaves_passes_without_a_long_prompt_to_decoding_sequences():
    loop = scheduler(batch_tokens=64)
    limits = PrefillLimits(long=30, passes_between=3)
    caught_up(loop, sequence(5))
    loop.add(sequence(1000))
    loop.admit()

    assert long_prompt_chunks(loop, limits, 9) == [30, 0, 0, 0, 30, 0, 0, 0, 30]


def test_scheduler_prefills_other_prompts_between_chunks_of_a_long_one():
    loop = scheduler(batch_tokens=64)
    limits = PrefillLimits(long=30, passes_between=3)
    caught_up(loop, sequence(5))
    loop.add(sequence(1000))
    loop.admit()
    long_prompt_chunks(loop, limits, 2)
    short = sequence(400, arrived_at=1)
    loop.add(short)
    loop.admit()

    assert {item.sequence: item.count for item in loop.plan(limits)}[short] == 63


def test_scheduler_does_not_limit_a_long_prompt_without_interactive_company():
    limits = PrefillLimits(long=30, passes_between=3)
    alone, beside_batch = scheduler(batch_tokens=64), scheduler(batch_tokens=64)
    caught_up(beside_batch, batch(5))
    for loop in (alone, beside_batch):
        loop.add(sequence(1000))
        loop.admit()

    assert long_prompt_chunks(alone, limits, 3) == [64, 64, 64]
    assert long_prompt_chunks(beside_batch, limits, 3) == [63, 63, 63]


def test_scheduler_limits_a_long_prompt_to_its_end():
    loop = scheduler(batch_tokens=64)
    caught_up(loop, sequence(5))
    loop.add(sequence(520))
    loop.admit()

    chunks = long_prompt_chunks(loop, PrefillLimits(long=63, passes_between=1), 18)
    assert chunks == [63, 0] * 8 + [16, 1]


def test_scheduler_limits_batch_prefill_by_its_budget():
    loop = scheduler(batch_tokens=64)
    jobs, person = [batch(1000), batch(500, arrived_at=1)], sequence(20, arrived_at=2)
    loop.add(*jobs)
    loop.admit()
    before = loop.plan(PrefillLimits(batch=10))
    loop.complete_pass(before)
    loop.add(person)
    loop.admit()

    assert sum(item.count for item in before) == 10
    shares = {item.sequence: item.count for item in loop.plan(PrefillLimits(batch=10))}
    assert shares.pop(person) == 20
    assert sum(shares.values()) == 10
    assert sum(item.count for item in loop.plan()) == 64


def test_scheduler_preempts_a_batch_sequence_after_its_share():
    loop = scheduler(slots=1)
    job, person = batch(3), sequence(3, arrived_at=1)
    caught_up(loop, job)
    loop.add(person)
    computed(loop, passes=60)
    early = loop.admit()
    computed(loop, passes=4)
    late = loop.admit()

    assert early == []
    assert [admitted.sequence for admitted in late] == [person]
    assert job.slot is None


def test_scheduler_preempts_a_batch_sequence_for_one_whose_prefix_is_read():
    loop = scheduler(slots=1)
    job, person = batch(3), sequence(40, arrived_at=1)
    caught_up(loop, job)
    loop._cache.prefixes_being_restored = (person.reusable_tokens[:39],)
    loop.add(person)
    computed(loop, passes=64)

    assert [admitted.sequence for admitted in loop.admit()] == [person]


def test_scheduler_readmits_a_preempted_batch_sequence():
    loop = scheduler(slots=2)
    job, *people = batch(3), *(sequence(3, arrived_at=1) for _ in range(2))
    caught_up(loop, job, people[0])
    computed(loop, passes=64)
    loop.add(people[1])
    loop.admit()
    loop.remove(people[0])
    (back,) = loop.admit()

    assert back.sequence is job


def test_scheduler_preempts_no_batch_sequence_for_another():
    loop = scheduler(slots=1)
    job = batch(3)
    caught_up(loop, job)
    loop.add(batch(3, arrived_at=1))
    computed(loop, passes=70)

    assert loop.admit() == []


def test_scheduler_interactive_requests_do_not_starve_batch_sequences():
    loop = scheduler(slots=1)
    job = batch(3)
    loop.add(job)
    for arrival in range(1, 10):
        person = sequence(3, arrived_at=arrival)
        loop.add(person)
        (admitted,) = loop.admit()
        if admitted.sequence is job:
            break
        loop.remove(admitted.sequence)

    assert job.slot is not None


def test_scheduler_preempted_batch_prefill_makes_progress():
    loop = scheduler(slots=1, batch_tokens=300)
    job = batch(300)
    loop.add(job)
    lengths = []
    for arrival in range(1, 40):
        loop.add(person := sequence(3, arrived_at=arrival))
        while person.slot is None:
            loop.admit()
            computed(loop, passes=1)
        loop.remove(person)
        lengths.append(len(job.tokens))

    stays = sorted(set(lengths))
    assert len(stays) > 2
    assert all(later - earlier >= 64 for earlier, later in itertools.pairwise(stays[1:]))


def test_waiting_queue_interactive_sequence_waits_for_no_batch_prefix():
    loop = scheduler(slots=2, batch_tokens=8)
    job, person = batch(40, first=1), sequence(40, first=1, arrived_at=1)
    loop.add(job)
    loop.admit()
    loop.complete_pass(loop.plan())
    loop.add(person)
    (admitted,) = loop.admit()

    assert admitted.sequence is person
    assert person.cached_tokens == 8


def test_waiting_queue_batch_sequence_waits_for_an_interactive_prefix():
    loop = scheduler(slots=2, batch_tokens=8)
    person, job = sequence(20, first=1), batch(20, first=1, arrived_at=1)
    loop.add(person, job)

    assert [admitted.sequence for admitted in loop.admit()] == [person]


def test_scheduler_preempts_no_batch_sequence_without_a_candidate():
    loop = scheduler(slots=2, batch_tokens=80)
    job, leader = batch(3), sequence(4000, first=1, arrived_at=1)
    caught_up(loop, job)
    computed(loop, passes=64)
    loop.add(leader)
    loop.admit()
    computed(loop, passes=1)
    loop.add(sequence(4000, first=1, arrived_at=2), batch(3, arrived_at=3))

    assert loop.admit() == []
    assert job.slot is not None


def test_scheduler_preemption_does_not_consume_the_turn_of_the_oldest():
    loop = scheduler(slots=2)
    jobs = [batch(3, arrived_at=number) for number in range(3)]
    loop.add(*jobs)
    for arrival in range(10, 1000):
        person = sequence(3, arrived_at=arrival)
        loop.add(person)
        while person.slot is None:
            loop.admit()
            computed(loop, passes=1)
            for job in [job for job in jobs if job.is_full]:
                loop.remove(job)
                jobs.remove(job)
        loop.remove(person)

    assert not jobs
