import itertools

from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.scheduling.label_tree import LabelPath, LabelTree, begins_with_another

LABELS = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=8
).filter(lambda labels: not begins_with_another(labels))


def test_labels_of_one_token_have_one_node():
    tree = LabelTree([[7], [8], [9]])

    assert tree.head == []
    assert tree.paths() == [LabelPath(tokens=(), first=0)]
    assert tree.next_tokens(()) == [7, 8, 9]


def test_the_common_beginning_of_all_labels_is_the_head():
    tree = LabelTree([[5, 7], [5, 8, 9]])

    assert tree.head == [5]
    assert tree.paths() == [LabelPath(tokens=(8,), first=0)]


def test_a_single_label_keeps_its_last_token():
    tree = LabelTree([[5, 6]])

    assert (tree.head, tree.next_tokens(())) == ([5], [6])


@given(LABELS)
def test_every_node_is_read_in_one_path_and_labels_add_up_their_tokens(labels):
    tree = LabelTree(labels)
    read = [
        path.tokens[:end]
        for path in tree.paths()
        for end in range(path.first, len(path.tokens) + 1)
    ]
    logprobs = {node: dict.fromkeys(tree.next_tokens(node), -1.0) for node in read}

    assert len(set(read)) == len(read)
    lengths = [len(label) - len(tree.head) for label in labels]
    assert tree.label_logprobs(logprobs) == [-float(length) for length in lengths]


@given(st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=1, max_size=6))
def test_labels_that_begin_with_another_are_found(labels):
    pairs = itertools.permutations(labels, 2)

    assert begins_with_another(labels) == any(one[: len(other)] == other for one, other in pairs)
