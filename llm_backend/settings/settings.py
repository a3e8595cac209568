"""All groups joined: one frozen `Settings`."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from llm_backend.settings.access import AccessSettings
from llm_backend.settings.audio import SpeechSettings, TranscriptionSettings, VoiceSettings
from llm_backend.settings.bounds import BoundsSettings
from llm_backend.settings.images import ImagesSettings
from llm_backend.settings.kinds import PREFIX, require_text
from llm_backend.settings.listening import ListeningSettings
from llm_backend.settings.local_models import LocalModelsSettings
from llm_backend.settings.observability import ObservabilitySettings
from llm_backend.settings.realtime import RealtimeSettings
from llm_backend.settings.responses import ResponsesSettings
from llm_backend.settings.search import SearchSettings
from llm_backend.settings.state import StateSettings
from llm_backend.settings.upstreams import UpstreamsSettings
from llm_backend.settings.webhooks import WebhooksSettings


class Settings(
    ObservabilitySettings,  # reversed: pydantic orders fields from the last base
    BoundsSettings,
    WebhooksSettings,
    RealtimeSettings,
    ResponsesSettings,
    SearchSettings,
    StateSettings,
    ImagesSettings,
    UpstreamsSettings,
    TranscriptionSettings,
    VoiceSettings,
    SpeechSettings,
    LocalModelsSettings,
    AccessSettings,
    ListeningSettings,
    BaseSettings,
):
    """All settings, each with its default and unit."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # `${NAME:-}` of Compose omits a variable
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        protected_namespaces=(),
    )

    _check_empty = field_validator("*", mode="before")(require_text)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host names that requests may be addressed to; empty means any. By default a server on
        loopback restricts them to its own until it has a key."""
        if self.allowed_hosts or self.api_keys or not self.is_loopback:
            return self.allowed_hosts
        return "localhost", "127.0.0.1", "[::1]", self.host

    @property
    def models_folder(self) -> Path:
        """Folder of the downloaded models."""
        return self.models_dir or self.data_dir / "models"


SETTING_GROUPS: Mapping[str, type[BaseModel]] = {
    "Listening": ListeningSettings,
    "Keys, limits, costs": AccessSettings,
    "Local models": LocalModelsSettings,
    "Speech": SpeechSettings,
    "Cloned voices": VoiceSettings,
    "Transcription": TranscriptionSettings,
    "Upstreams": UpstreamsSettings,
    "Images": ImagesSettings,
    "State": StateSettings,
    "Text extraction and search": SearchSettings,
    "Responses": ResponsesSettings,
    "Realtime": RealtimeSettings,
    "Webhooks": WebhooksSettings,
    "Bounds": BoundsSettings,
    "Observability": ObservabilitySettings,
}
"""Groups of settings by title, in the order of the documentation."""
