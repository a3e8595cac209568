"""Values of stored voices and consents."""

from dataclasses import dataclass

from llm_backend.store.objects.blob import Content, size_of


@dataclass(frozen=True, kw_only=True)
class StoredVoiceConsent:
    """The consent of a person to a voice by a sample: its recording as it was sent."""

    id: str
    created_at: int  # unix seconds
    name: str
    language: str
    media_type: str
    content: Content

    @property
    def size_bytes(self) -> int:
        """Bytes of the recording."""
        return size_of(self.content)


@dataclass(frozen=True, kw_only=True)
class StoredVoice:
    """A voice by a sample. `content` are samples of one channel: signed, 16 bits, little-endian, in
    the rate of the models that take them."""

    id: str
    created_at: int  # unix seconds
    name: str
    consent_id: str
    content: Content

    @property
    def size_bytes(self) -> int:
        """Bytes of the sample."""
        return size_of(self.content)
