from llm_backend.engine.messages import Generate
from llm_backend.engine.suspects import Suspects


def command(prompt: str, name: str = "1") -> Generate:
    return Generate(id=name, prompt=prompt)


def test_the_same_content_is_convicted_whatever_its_name():
    suspects = Suspects(limit=10, crashes=2)
    suspects.blame([command("a", "1")])
    suspects.blame([command("a", "2"), command("b")])

    assert suspects.is_convicted(command("a", "3"))
    assert not suspects.is_convicted(command("b"))


def test_an_answer_clears_a_suspect():
    suspects = Suspects(limit=10, crashes=1)
    suspects.blame([command("a")])
    suspects.clear(command("a"))

    assert not suspects.is_convicted(command("a"))


def test_only_so_many_are_remembered():
    suspects = Suspects(limit=2, crashes=1)
    suspects.blame([command("a"), command("b"), command("c")])

    assert [suspects.is_convicted(command(prompt)) for prompt in "abc"] == [False, True, True]
