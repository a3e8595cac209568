"""Prefix index: files that match a text, and files that are evicted."""

from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.kv_cache.blocks import block_hashes, tokens_name
from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.kv_cache.prefix_index import PrefixEntry, PrefixIndex

BLOCK = 64
blocks = st.lists(st.integers(0, 1), max_size=4)


def text(letters: list[int], tail: int = 0) -> list[int]:
    """A block for each letter, and a few tokens more."""
    return [letter for letter in letters for _ in range(BLOCK)] + [7] * tail


def entry(tokens: list[int], size: int = 100) -> PrefixEntry:
    return PrefixEntry(
        name=tokens_name(tokens), tokens=len(tokens), size=size, blocks=block_hashes(tokens)
    )


def index(*entries: PrefixEntry, limit_bytes: int = 1000) -> PrefixIndex:
    one = PrefixIndex(limit_bytes)
    for each in entries:
        one.add(each)
    return one


@given(st.lists(blocks.filter(len)), blocks, st.integers(0, BLOCK - 1))
def test_prefix_index_matches_the_file_with_the_most_common_blocks(stored, wanted, tail):
    files = [text(letters) for letters in stored]
    tokens = text(wanted, tail)
    match = index(*map(entry, files)).match(tokens)

    longest = max((common_prefix_length(file, tokens) for file in files), default=0)
    assert (match.tokens if match else 0) == longest // BLOCK * BLOCK


def test_prefix_index_prefers_the_smallest_of_equal_matches():
    small, large = entry(text([1, 2]), 10), entry(text([1, 2, 3]), 20)

    assert index(large, small).match(text([1, 2, 4])).entry == small


def test_prefix_index_lists_all_files_with_the_most_common_blocks():
    files = index(*(entry(text(letters)) for letters in ([1, 2, 3], [1, 2], [1, 3], [2])))
    matches = files.longest_matches(text([1, 2, 4]))

    assert {match.entry.tokens for match in matches} == {2 * BLOCK, 3 * BLOCK}
    assert {match.tokens for match in matches} == {2 * BLOCK}
    assert files.longest_matches(text([3])) == []


def test_prefix_index_whole_match_is_a_prefix_to_its_last_token():
    files = index(entry(text([1], 5)), entry(text([1, 2], 5)), entry(text([1, 3])))

    assert files.whole_match([*text([1, 2], 5), 1]).tokens == 2 * BLOCK + 5
    assert files.whole_match(text([1, 2], 4)) is None
    assert files.whole_match(text([1, 3, 1])).tokens == 2 * BLOCK


def test_prefix_index_does_not_find_removed_files():
    files = index(entry(text([1, 2])), entry(text([1])))
    files.remove(tokens_name(text([1, 2])))
    files.remove("unknown")

    assert files.match(text([1, 2])).tokens == BLOCK
    assert (len(files), files.bytes) == (1, 100)


def test_prefix_index_replaces_shorter_files_that_were_never_read():
    files = index(entry(text([1])), entry(text([1, 2])), entry(text([2])), entry(text([1, 3])))
    files.mark_used(tokens_name(text([1])))

    assert files.find_replaced(entry(text([1, 2, 3]))) == [tokens_name(text([1, 2]))]


def test_prefix_index_evicts_the_least_recently_used_files():
    one, two, three = (entry(text([number, 1])) for number in (1, 2, 3))
    files = index(one, two, three, limit_bytes=300)
    files.mark_used(one.name)

    assert files.find_evictable(150, retained=()) == [two.name, three.name]
    assert files.find_evictable(100, retained={two.name}) == [three.name]
    assert files.find_evictable(200, retained={one.name, two.name}) is None
    assert files.find_evictable(0, retained=()) == []


def test_prefix_index_counts_the_size_of_replaced_files():
    chat, other = entry(text([1, 2]), 200), entry(text([3]), 100)
    files = index(other, chat, limit_bytes=350)

    def removable(size, *retained: str, can_roll_back: bool = True):
        new = entry(text([1, 2, 3]), size)
        return files.find_removable(new, retained, can_roll_back=can_roll_back)

    assert removable(250) == [chat.name]
    assert removable(260) == [chat.name, other.name]
    assert removable(260, other.name) is None
    assert removable(150, can_roll_back=False) == [other.name]
    assert len(files) == 2
