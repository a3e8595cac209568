"""Values of stored voices and consents."""

from dataclasses import dataclass

from llm_backend.store.objects.blob import Content, size_of


@dataclass(frozen=True, kw_only=True)
class StoredVoiceConsent:
    """A person's consent to the cloning of the own voice: the recording as it was sent."""

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
    """A cloned voice. `content` is its audio: one channel, signed 16 bits, little-endian, at the
    rate that the models need."""

    id: str
    created_at: int  # unix seconds
    name: str
    consent_id: str
    content: Content

    @property
    def size_bytes(self) -> int:
        """Bytes of the sample."""
        return size_of(self.content)
