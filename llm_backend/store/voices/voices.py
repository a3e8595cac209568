"""Store of cloned voices and of the consents to them: rows in the database, audio in the
object store."""

from collections.abc import Mapping, Sequence

from llm_backend.store.database.database import Database
from llm_backend.store.keyset_pages import Page, PageRequest
from llm_backend.store.objects import Blobs
from llm_backend.store.text_checks import check_texts
from llm_backend.store.voices import voice_rows
from llm_backend.store.voices.stored_voice import StoredVoice, StoredVoiceConsent


class VoiceStore:
    """The voices and consents of a database, and `blobs`, which stores their audio. An owner has at
    most `limit` of each; `limit_bytes` bounds them together with all files and uploads."""

    def __init__(
        self, database: Database, blobs: Blobs, *, limit: int, limit_bytes: int | None = None
    ) -> None:
        self.blobs = blobs
        self._database = database
        self._limit = limit
        self._limit_bytes = limit_bytes

    async def add_consent(self, consent: StoredVoiceConsent) -> None:
        """Stores a consent, whose blob is written already; durable on return. Raises
        `VoicesFull`, `FilesFull`, `BlobGone`, `Unstorable`."""
        check_texts(consent.name, consent.language, consent.media_type)
        await self._database.write(
            voice_rows.add_consent,
            consent=consent,
            limit=self._limit,
            limit_bytes=self._limit_bytes,
        )

    async def add(self, voice: StoredVoice) -> None:
        """Stores a voice, whose blob is written already; durable on return. Raises `Missing`
        for its consent, `VoicesFull`, `FilesFull`, `BlobGone`, `Unstorable`."""
        check_texts(voice.name)
        await self._database.write(
            voice_rows.add_voice, voice=voice, limit=self._limit, limit_bytes=self._limit_bytes
        )

    async def check_capacity(self) -> None:
        """Raises `VoicesFull` if no further voice is allowed now. The limit is checked again when a
        voice is stored."""
        await self._database.read(voice_rows.check_capacity, limit=self._limit)

    async def get_consent(self, id: str) -> StoredVoiceConsent:
        """The consent with this id. Raises `Missing`."""
        return await self._database.read(voice_rows.get_consent, id=id)

    async def get(self, id: str) -> StoredVoice:
        """The voice with this id. Raises `Missing`."""
        return await self._database.read(voice_rows.get_voice, id=id)

    async def list_consents(self, *, after: str | None, limit: int) -> Page[StoredVoiceConsent]:
        """A page of the consents, the newest first. Raises `UnknownCursor`."""
        request = PageRequest(after=after, limit=limit, order="desc")
        return await self._database.read(voice_rows.find_consents, request=request)

    async def list(self) -> Sequence[StoredVoice]:
        """All voices of the owner, the oldest first."""
        return await self._database.read(voice_rows.find_voices)

    async def consent_languages(self) -> Mapping[str, str]:
        """The languages of all consents of the owner, by id."""
        return await self._database.read(voice_rows.find_consent_languages)

    async def rename_consent(self, id: str, name: str) -> StoredVoiceConsent:
        """Changes the name of the consent. Raises `Missing`, `Unstorable`."""
        check_texts(name)
        return await self._database.write(voice_rows.rename_consent, id=id, name=name)

    async def delete_consent(self, id: str) -> None:
        """Deletes the consent and its recording. Raises `Missing`, `ConsentInUse`."""
        await self.blobs.remove(await self._database.write(voice_rows.delete_consent, id=id))

    async def delete(self, id: str) -> None:
        """Deletes the voice and its sample. Raises `Missing`."""
        await self.blobs.remove(await self._database.write(voice_rows.delete_voice, id=id))

    async def read(self, voice: StoredVoice) -> bytes:
        """The sample of a voice. Raises `ObjectsUnavailable`, `ObjectMissing`."""
        pieces = self.blobs.read(voice.content, 0, voice.size_bytes)
        return b"".join([piece async for piece in pieces])
