"""Voices: what the program lists, and names for it."""

from llm_backend.backends.speech import OPENAI_VOICES, Espeak
from llm_backend.backends.speech.voices import VoiceNames, parse_voices, voices_by_id
from tests.voice import PROGRAM, require_voice

LISTING = """\
Pty Language       Age/Gender VoiceName          File                 Other Languages
 5  af              --/M      Afrikaans          gmw/af
 2  en-us           --/M      English_(America)  gmw/en-US            (en 3)
 5  cmn             --/M      Chinese_(Mandarin) sit/cmn              (zh-cmn 5)(zh 5)
 5  variant         --/M      Mr_Serious         !v/Mr serious
 5  variant         25/F      Linda              !v/linda             (en-us 5)
"""


def test_lines_of_the_listing_are_voices():
    voices = list(parse_voices(LISTING))

    assert [(one.id, one.name, one.gender) for one in voices] == [
        ("af", "Afrikaans", "male"),
        ("en-us", "English (America)", "male"),
        ("cmn", "Chinese (Mandarin)", "male"),
        ("Mr serious", "Mr Serious", "male"),
        ("linda", "Linda", "female"),
    ]


def test_names_are_of_voices_with_a_variant_or_without():
    voices = voices_by_id(LISTING + LISTING.replace("gmw/af", "xx/af"))
    names = VoiceNames(voices=voices, variants=voices, others={"nova": "af+linda", "old": "xx"})

    assert names.find("nova") == names.find("af+linda") == "gmw/af+linda"
    assert names.find("en-us") == "gmw/en-US"
    for unknown in ("xx", "old", "af+", "af+xx", "../etc/passwd", "af+../af", "-v", ""):
        assert names.find(unknown) is None
    assert [(one.id, one.gender) for one in names.list_voices()][:2] == [
        ("nova", "female"),
        ("af", "male"),
    ]


async def test_each_of_openais_names_is_a_voice_of_its_own_audio():
    require_voice()
    espeak = Espeak(PROGRAM, timeout_s=30, others=OPENAI_VOICES)
    names = await espeak.voice_names()
    audio = set()
    for name in OPENAI_VOICES:
        async with espeak.speak("Hello.", names.find(name) or "", 175) as samples:
            audio.add(b"".join([chunk async for chunk in samples.chunks]))

    assert len(names.voices) > 50
    assert len(audio) == len(OPENAI_VOICES) == 13
