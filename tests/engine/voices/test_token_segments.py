"""Tokens of NeMo models as segments."""

from llm_backend.engine.voices.token_segments import RecognizedToken, build_segments, end_times


def token(text: str, start_s: float = 0.0) -> RecognizedToken:
    return RecognizedToken(text=text, number=0, start_s=start_s, end_s=start_s + 0.1, logprob=None)


def texts(*tokens: RecognizedToken) -> list[str]:
    return [one.text for one in build_segments(tokens, words=False)]


def test_a_number_with_a_point_is_not_divided():
    assert texts(token(" It"), token(" 3"), token("."), token("5")) == [" It 3.5"]


def test_a_segment_without_sentences_ends_after_15_seconds():
    heard = [token(" a", at) for at in range(20)]

    assert [len(one.split()) for one in texts(*heard)] == [15, 5]


def test_segments_and_words_of_a_script_without_spaces_end_as_those_with_spaces():
    spoken = ["今日は", "晴れ", "です", "。", "明日", "は", "雨", "です", "。"]
    tokens = [token(text, at / 2) for at, text in enumerate(spoken)]
    segments = build_segments([*tokens, token("あ", 20.0)], words=True)

    assert [one.text for one in segments] == ["今日は晴れです。", "明日は雨です。", "あ"]
    assert [one.text for one in segments[0].words] == ["今日は", "晴れ", "です。"]


def test_syllables_of_a_script_with_spaces_are_one_word():
    (segment,) = build_segments([token(" 안녕"), token("하세요"), token(".")], words=True)

    assert [one.text for one in segment.words] == ["안녕하세요."]


def test_a_character_of_several_bytes_is_whole():
    (segment,) = build_segments([token(" gr"), token("<0xC3>"), token("<0xBC>")], words=True)

    assert (segment.text, [one.text for one in segment.words]) == (" grü", ["grü"])


def test_ends_without_durations_are_at_the_next_token():
    assert end_times([0.0, 0.1, 1.0], [], 1.2) == [0.1, 0.4, 1.2]
    assert end_times([0.0, 0.1], [0.2, 0.3], 0.3) == [0.2, 0.3]
