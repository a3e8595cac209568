"""Check of commit subjects, which pre-commit runs with the file of the message."""

from pathlib import Path

import pytest

from scripts.check_commit import main


def exit_code(folder: Path, message: str) -> int:
    """The exit status of the check for a commit message."""
    path = folder / "COMMIT_EDITMSG"
    path.write_text(message)
    return main([str(path)])


@pytest.mark.parametrize(
    "subject",
    [
        "engine: evict finished prefixes by age",
        "fix(store): keep the lease of a renewed job",
        "settings, docs: call the entries of `backends` upstreams",
        "detached chats: embed the state of a chat",
        "tests: pass",
        "a: " + "b" * 69,
    ],
)
def test_a_subject_with_area_and_verb_passes(tmp_path, capsys, subject):
    assert exit_code(tmp_path, f"{subject}\n\nThe body says why.\n") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("a: " + "b" * 70, "73 characters"),
        ("evict finished prefixes by age", "area: verb"),
        ("Engine: evict finished prefixes", "area: verb"),
        ("engine:evict finished prefixes", "area: verb"),
        ("engine: Evict finished prefixes", "area: verb"),
        ("feat(engine): evict prefixes", "area: verb"),
        ("engine: evicted finished prefixes", "`evicted`"),
        ("engine: evicting finished prefixes", "`evicting`"),
        ("engine: evicts finished prefixes", "`evicts`"),
        ("engine: a bound for finished prefixes", "`a`"),
        ("engine: evict finished prefixes.", "full stop"),
        ("", "area: verb"),
    ],
)
def test_another_subject_is_refused_with_the_reason(tmp_path, capsys, subject, reason):
    assert exit_code(tmp_path, f"{subject}\n\nThe body says why.\n") == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("subject", ["Merge branch 'main'", "fixup! engine: x", 'Revert "x"'])
def test_a_subject_that_git_writes_passes(tmp_path, subject):
    assert exit_code(tmp_path, subject) == 0


def test_comments_before_the_subject_are_no_part_of_the_message(tmp_path):
    assert exit_code(tmp_path, "# Lines with # are ignored.\n\nengine: evict by age\n") == 0
