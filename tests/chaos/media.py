"""Speech, transcription and images, all of which are known before they are asked for."""

import base64
import hashlib

import httpx

from tests.audio_files import wav_file
from tests.chaos.asking import Asking
from tests.chaos.far import colour_of, colour_of_image
from tests.whisper_models import HELLO

__all__ = ["PAINTER", "VOICE", "WHISPER", "Media"]

PAINTER, VOICE, WHISPER = "sd-one", "builtin-voice", "hello"
_HEARD = " ".join(words for _, words, _ in HELLO)
_AUDIO = wav_file(4)
_SIZE = "64x64"


class Media(Asking):
    """Operations on audio and images."""

    async def speech(self) -> None:
        """Some sentence, which always sounds the same."""
        text = self._draw.choice(["The cat sat.", "A dog ran away. It was not seen."])
        body = {"model": VOICE, "voice": "alloy", "input": text, "response_format": "pcm"}
        self._facts.asked["audio_speeches"] += 1
        answer = await self._client.post("/audio/speech", json=body)
        self._require_answer(answer)
        audio = hashlib.sha256(answer.content).hexdigest()
        self._check(f"audio of {text}", audio, self._facts.audio.setdefault(text, audio))

    async def transcription(self) -> None:
        """A recording, in which the model always hears the same."""
        form = {"data": {"model": WHISPER}, "files": {"file": ("a.wav", _AUDIO)}}
        self._facts.asked["audio_transcriptions"] += 1
        answer = self._body(await self._client.post("/audio/transcriptions", **form))
        self._check("transcript", answer["text"], _HEARD)

    async def image(self) -> None:
        """An image, in the answer or stored behind a URL."""
        prompt = self._new_word()
        format = self._draw.choice(["b64_json", "url"])
        body = {"model": PAINTER, "prompt": prompt, "size": _SIZE, "response_format": format}
        self._facts.asked["images"] += 1
        (drawn,) = (await self._post("/images/generations", body))["data"]
        if "url" in drawn:
            path = httpx.URL(drawn["url"]).path.removeprefix("/v1")
            self._facts.images[path] = colour_of(prompt)
        else:
            colour = colour_of_image(base64.b64decode(drawn["b64_json"]))
            self._check("colour of an image", colour, colour_of(prompt))
