from benchmarks.beside_long_prompt import Gaps


def test_control_compares_gaps_before_the_same_tokens():
    gaps = Gaps()
    gaps.part = "beside"
    for token in (7, 5, 6):
        gaps.add(token, 0.1)
    gaps.part = "control"
    for token in range(10):
        gaps.add(token, token / 1000)

    selected = gaps.select("control", gaps.tokens("beside"))

    assert selected.count("control") == 3
    assert selected.percentile("control", 100) == 7.0
