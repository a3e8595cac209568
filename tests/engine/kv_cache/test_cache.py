from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.kv_cache.slot_allocation import Copy, SlotAllocation, SlotTokens
from llm_backend.engine.media_runs import placeholder_tokens
from tests.engine.fakes import image


def placed(cache: Cache, tokens: list[int]) -> SlotAllocation:
    """Places a sequence and computes it whole."""
    allocation = cache.allocate(tokens)
    assert allocation is not None
    cache.extend(allocation.slot, tokens[allocation.cached_tokens :])
    return allocation


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_prefix_ends_at_the_first_difference(same, first, second):
    found = common_prefix_length(same + first, same + second)

    assert found >= len(same)
    assert (same + first)[:found] == (same + second)[:found]
    assert (same + first)[: found + 1] != (same + second)[: found + 1] or found == min(
        len(same + first), len(same + second)
    )


def test_cache_allocates_empty_slots_from_the_lowest_number():
    cache = Cache(slots=3)

    assert [placed(cache, [number]).slot for number in (7, 8, 9)] == [0, 1, 2]
    assert cache.allocate([10]) is None


def test_cache_continues_a_chat_in_its_slot():
    cache = Cache(slots=2)
    placed(cache, [1, 2, 3])
    cache.release(0)

    assert cache.allocate([1, 2, 3, 4, 5]) == SlotAllocation(slot=0, cached_tokens=3)


def test_cache_copies_the_prefix_of_a_running_sequence():
    cache = Cache(slots=2)
    placed(cache, [1, 2, 3, 4])

    assert cache.allocate([1, 2, 3, 9]) == SlotAllocation(
        slot=1, cached_tokens=3, copies=(Copy(source=0, target=1),)
    )


def test_cache_retains_finished_sequences_while_slots_are_empty():
    cache = Cache(slots=2)
    placed(cache, [1, 2, 3, 4, 5, 6])
    cache.release(0)

    assert cache.allocate([1, 2, 9]) == SlotAllocation(
        slot=1, cached_tokens=2, copies=(Copy(source=0, target=1),)
    )
    assert cache.longest_prefix_length([1, 2, 3, 4, 5, 6]) == 6


def answered(cache: Cache, tokens: list[int], answer: list[int]) -> SlotAllocation:
    """Places a sequence, computes it and its answer; then it ends."""
    allocation = placed(cache, tokens)
    cache.extend(allocation.slot, answer)
    cache.release(allocation.slot)
    return allocation


def test_cache_continues_a_chat_in_its_slot_if_only_the_end_of_its_answer_differs():
    cache = Cache(slots=2)
    answered(cache, list(range(70)), list(range(70, 100)))

    assert cache.allocate([*range(70), *range(200, 240)]) == SlotAllocation(
        slot=0, cached_tokens=70
    )


def test_cache_saves_the_prompt_of_another_chat_though_nothing_is_shared():
    cache = Cache(slots=2)
    cache.allocate([], prompt_tokens=90)
    cache.extend(0, list(range(100)))
    cache.release(0)
    incoming = cache.allocate([*range(70), *range(200, 240)])

    assert incoming == SlotAllocation(slot=1, cached_tokens=70, copies=(Copy(source=0, target=1),))


def test_cache_saves_a_long_answer_if_another_sequence_continues_from_its_prompt():
    cache = Cache(slots=2)
    answered(cache, list(range(60)), list(range(60, 100)))
    incoming = cache.allocate([*range(60), *range(200, 240)])

    assert incoming == SlotAllocation(slot=1, cached_tokens=60, copies=(Copy(source=0, target=1),))
    assert cache.longest_prefix_length(list(range(100))) == 100


@given(st.integers(2, 4))
def test_cache_keeps_chats_under_one_system_prompt_in_their_own_slots(slots):
    cache, system = Cache(slots=slots), list(range(900))
    chats = [[*system, 1000 + number, 2, 3, 4, 5, 6] for number in range(2)]
    for turn in range(3):
        for chat in chats:
            known = cache.longest_prefix_length(chat)
            answer = [*range(5000 + turn, 5030 + turn)]
            allocation = answered(cache, list(chat), answer)
            assert allocation.cached_tokens == (known if turn else allocation.cached_tokens)
            assert not turn or allocation.cached_tokens > len(system)
            chat += [*answer, 7, 8, 9]


def test_cache_copies_the_prompt_length_with_the_tokens():
    cache, asked = Cache(slots=4), list(range(100, 170))
    placed(cache, [1])
    answered(cache, asked, list(range(170, 200)))
    placed(cache, [2])  # beside the first: what was there is moved
    placed(cache, [*asked[:60], 3])  # another question under the same words

    assert cache.longest_prefix_length(list(range(100, 200))) == 100


def test_cache_does_not_copy_a_prefix_below_the_threshold():
    cache = Cache(slots=2, copy_threshold=4)
    placed(cache, [1, 2, 3, 4, 5, 6, 7, 8, 9])

    assert cache.allocate([1, 2, 3, 9]) == SlotAllocation(slot=1, cached_tokens=0)


def test_cache_copies_a_short_prefix_of_a_short_text_if_only_used_cells_are_copied():
    cache = Cache(slots=3, copy_threshold=16, copies_only_used_cells=True)
    placed(cache, [*range(8), *[8] * 400])
    copied = placed(cache, [*range(8), *[9] * 200])
    short = placed(cache, [*range(8), 7])

    assert copied == SlotAllocation(slot=1, cached_tokens=0)  # 408 cells for 8 tokens are too many
    assert short == SlotAllocation(slot=2, cached_tokens=8, copies=(Copy(source=1, target=2),))


def test_cache_does_not_copy_a_prefix_of_three_tokens():
    cache = Cache(slots=2, copy_threshold=16, copies_only_used_cells=True)
    placed(cache, [1, 2, 3, 4])

    assert cache.allocate([1, 2, 3, 5]) == SlotAllocation(slot=1, cached_tokens=0)


def test_cache_evicts_the_least_recently_used_slot():
    cache = Cache(slots=2)
    placed(cache, [1, 1])
    placed(cache, [2, 2])
    cache.release(1)
    cache.release(0)

    assert cache.allocate([3, 3]) == SlotAllocation(slot=1, cached_tokens=0)
    assert cache.longest_prefix_length([2, 2]) == 0


def test_cache_evicts_no_running_sequence():
    cache = Cache(slots=2)
    placed(cache, [1, 1])
    placed(cache, [2, 2])
    cache.release(1)

    evicted = cache.evict_prefix()
    assert evicted is not None
    assert evicted.slot == 1
    assert cache.evict_prefix() is None


def test_cache_reuses_a_recurrent_state_from_its_end_only():
    cache = Cache(slots=2, can_roll_back=False)
    placed(cache, [1, 2, 3])
    cache.release(0)

    assert cache.longest_prefix_length([1, 2, 9]) == 0
    assert cache.allocate([1, 2, 3, 4]) == SlotAllocation(slot=0, cached_tokens=3)


def test_cache_allocates_next_to_running_slots_and_copies_the_overwritten_prefix():
    cache = Cache(slots=4)
    for tokens in ([1] * 9, [2] * 9, [3] * 9, [4] * 9):
        placed(cache, tokens)
    for slot in (3, 1, 2):
        cache.release(slot)  # 0 runs on; 3 was used longest ago

    assert cache.allocate([5] * 9) == SlotAllocation(
        slot=1, cached_tokens=0, copies=(Copy(source=1, target=3),)
    )
    assert cache.longest_prefix_length([2] * 9) == 9
    assert cache.longest_prefix_length([4] * 9) == 0


def test_cache_copies_an_overwritten_prefix_into_a_cleared_slot_first():
    cache = Cache(slots=4)
    for number in range(4):
        placed(cache, [number] * 8)
    for slot in (2, 1, 3):
        cache.release(slot)
    cache.clear(3)

    allocation = cache.allocate([9] * 8)

    assert allocation is not None
    assert (allocation.slot, allocation.copies) == (1, (Copy(source=1, target=3),))


def test_cache_compacts_a_gap_by_moving_a_sequence():
    cache = Cache(slots=3)
    for tokens in ([1] * 9, [2] * 9, [3] * 9):
        placed(cache, tokens)
    cache.release(1)

    first, allocation = cache.compact()
    assert (first, allocation.slot, allocation.cached_tokens) in {(2, 1, 9), (0, 1, 9)}
    assert allocation.copies[-1] == Copy(source=first, target=1)
    assert cache.compact() is None


def test_cache_ignores_neighbours_if_cells_are_unified():
    cache = Cache(slots=3, kv_unified=True)
    for tokens in ([1] * 9, [2] * 9, [3] * 9):
        placed(cache, tokens)
    cache.release(1)

    assert cache.compact() is None


def test_cache_reuses_an_image_as_a_whole_or_not_at_all():
    cat = placeholder_tokens(image("cat"), 0, 5)
    cache = Cache(slots=1)
    cache.allocate([7, 8])
    cache.extend(0, [7, 8, *cat[:3]])
    cache.release(0)

    allocation = cache.allocate([7, 8, *cat, 9])

    assert allocation is not None
    assert allocation.cached_tokens == 2


def test_cache_shares_a_whole_image_but_no_other():
    cat, dog = placeholder_tokens(image("cat"), 0, 5), placeholder_tokens(image("dog"), 0, 5)
    cache = Cache(slots=1)
    cache.allocate([7])
    cache.extend(0, [7, *cat, 9])

    assert cache.longest_prefix_length([7, *cat, 8]) == 6
    assert cache.longest_prefix_length([7, *dog, 9]) == 1
    assert cache.longest_prefix_length([7, *placeholder_tokens(image("cat"), 1, 5), 9]) == 1


def test_cache_restores_into_the_least_recently_used_free_slot():
    cache = Cache(slots=3, kv_unified=True)
    for tokens in ([1] * 9, [2] * 9, [3] * 9):
        placed(cache, tokens)
    cache.release(2)
    cache.release(1)

    assert cache.allocate_restored([4] * 5) == SlotAllocation(slot=2, cached_tokens=0)
    assert cache.longest_prefix_length([4] * 9) == 5
    assert cache.allocate([4] * 9) == SlotAllocation(slot=2, cached_tokens=5)
    placed(cache, [5])
    assert cache.allocate_restored([6]) is None


def test_cache_reports_overwritten_prefixes_above_the_save_threshold():
    cache = Cache(slots=1, save_threshold=4)
    placed(cache, [1, 1, 1])
    cache.release(0)
    assert placed(cache, [2, 2, 2, 2, 2]).overwritten == ()
    cache.release(0)
    assert placed(cache, [2, 2, 9, 9]).overwritten == ()
    cache.release(0)

    assert placed(cache, [3] * 9).overwritten == (SlotTokens(slot=0, tokens=[2, 2, 9, 9]),)
    cache.release(0)
    assert cache.allocate_restored([4]).overwritten == (SlotTokens(slot=0, tokens=[3] * 9),)


def test_cache_reports_the_victim_of_a_copy_as_overwritten():
    cache = Cache(slots=2, save_threshold=4)
    placed(cache, [1] * 6)
    placed(cache, [2] * 6)
    cache.release(0)
    cache.release(1)
    allocation = cache.allocate([2, 2, 3])

    assert allocation.overwritten == (SlotTokens(slot=0, tokens=[1] * 6),)
    assert cache.longest_prefix_length([2] * 6) == 6


def test_cache_expects_a_restored_prefix_only_if_longer_than_any_cached_one():
    cache = Cache(slots=2, copy_threshold=2)
    placed(cache, [1, 1, 1])
    cache.prefixes_being_restored = ([1] * 4, [2] * 4)

    assert not cache.should_wait_for_restore([1] * 9)
    assert cache.should_wait_for_restore([2, 2, 9])
    assert not cache.should_wait_for_restore([2])
    assert not cache.should_wait_for_restore([])


def test_cache_lists_slots_most_recently_used_first():
    cache = Cache(slots=3)
    for number in (1, 2):
        placed(cache, [number])
    cache.release(0)

    assert cache.cached_slots == [SlotTokens(slot=0, tokens=[1]), SlotTokens(slot=1, tokens=[2])]
