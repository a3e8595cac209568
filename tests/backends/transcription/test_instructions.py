"""Instructions of language models that hear."""

import pytest

from llm_backend.backends.transcription import TranscriptRequest
from llm_backend.backends.transcription.instructions import (
    ASR_TEXT,
    TRANSCRIBE,
    Instruction,
    instruction_for,
)
from llm_backend.errors import InvalidRequest


def test_qwen_asr_gets_the_audio_alone_and_a_known_language():
    plain = instruction_for("qwen3vl", {ASR_TEXT}, TranscriptRequest())
    given = instruction_for("qwen3vl", {ASR_TEXT}, TranscriptRequest(language="de", prompt="Anna"))

    assert plain == Instruction(system="", has_header=True)
    assert given == Instruction(system="Anna", opening="language German<asr_text>", has_header=True)


def test_voxtral_transcribes_in_its_own_mode_and_else_by_request():
    plain = instruction_for("llama", {TRANSCRIBE}, TranscriptRequest())
    given = instruction_for("llama", {TRANSCRIBE}, TranscriptRequest(language="fr"))
    hinted = instruction_for("llama", {TRANSCRIBE}, TranscriptRequest(prompt="Anna"))
    translated = instruction_for("llama", {TRANSCRIBE}, TranscriptRequest(translate=True))

    assert plain == Instruction(opening="[TRANSCRIBE]")
    assert given == Instruction(opening="lang:fr[TRANSCRIBE]")
    assert hinted.after.endswith(" Context: Anna")
    assert "into English" in translated.after
    assert not hinted.opening + translated.opening


def test_granite_gets_the_sentences_of_its_training():
    heard = instruction_for("granite", (), TranscriptRequest())
    translated = instruction_for("granitehybrid", (), TranscriptRequest(translate=True))

    assert heard == Instruction(after="can you transcribe the speech into a written format?")
    assert translated == Instruction(after="translate the speech to English")


def test_glm_asr_gets_the_sentence_of_its_training_after_the_message_with_the_audio():
    marks = ("<|begin_of_audio|>",)
    given = instruction_for("llama", marks, TranscriptRequest())
    hinted = instruction_for("llama", marks, TranscriptRequest(language="en", prompt="Anna"))
    translated = instruction_for("llama", marks, TranscriptRequest(translate=True))
    other = instruction_for("glm4moe", marks, TranscriptRequest())

    sentence = "Please transcribe this audio into text"
    assert given == Instruction(next_message=sentence)
    assert hinted.next_message == f"{sentence}. The language is English. Context: Anna"
    assert "into English" in translated.next_message
    assert other.before
    assert not other.next_message


def test_meralion_gets_the_instructions_of_its_training_before_the_audio():
    marks = ("<SpeechHere>",)
    given = instruction_for("gemma2", marks, TranscriptRequest())
    hinted = instruction_for("gemma2", marks, TranscriptRequest(language="ms"))
    translated = instruction_for("gemma2", marks, TranscriptRequest(translate=True))

    begin, end = "Instruction: ", " \nFollow the text instruction based on the following audio: "
    task = "Please transcribe this speech."
    assert given == Instruction(before=f"{begin}{task}{end}")
    assert hinted == Instruction(before=f"{begin}{task} The language is Malay.{end}")
    assert "into written English" in translated.before


def test_other_models_get_a_request_in_words_before_the_audio():
    asked = instruction_for("llama", (), TranscriptRequest(language="sw", prompt="Anna"))

    assert asked.before.endswith(" The language is sw. Context: Anna\n")
    assert (asked.system, asked.after, asked.opening) == (None, "", "")


@pytest.mark.parametrize(
    ("architecture", "marks", "request_", "param"),
    [
        ("lfm2", (), TranscriptRequest(translate=True), "model"),
        ("lfm2", (), TranscriptRequest(prompt="Anna"), "prompt"),
        ("lfm2", (), TranscriptRequest(language="en"), "language"),
        ("qwen3vl", {ASR_TEXT}, TranscriptRequest(translate=True), "model"),
        ("qwen3vl", {ASR_TEXT}, TranscriptRequest(language="sw"), "language"),
        ("llama", (), TranscriptRequest(language="English"), "language"),
    ],
)
def test_a_field_that_a_model_cannot_honour_is_refused(architecture, marks, request_, param):
    with pytest.raises(InvalidRequest) as refused:
        instruction_for(architecture, marks, request_)

    assert refused.value.param == param


def test_lfm2_gets_its_system_message():
    assert instruction_for("lfm2", (), TranscriptRequest()) == Instruction(system="Perform ASR.")
