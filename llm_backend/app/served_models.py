"""Local models of the settings: their files, names and templates.

Every function raises `SettingsError`, one sentence, for a model that cannot be served.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from llm_backend.app import engine_configs, per_model_settings
from llm_backend.app.folder_models import find_folder_models
from llm_backend.app.per_model_settings import NamedProjector, find_projector
from llm_backend.backends.base import ModelCard
from llm_backend.backends.local.chat_formats import CHAT_FORMATS, ChatFormat, format_of_turns
from llm_backend.backends.local.chat_template import ChatTemplate
from llm_backend.backends.local.image_setup import LocalImageSetup, local_parameters
from llm_backend.backends.speech import BUILTIN_VOICE
from llm_backend.builtin import BUILTIN_DESCRIPTION, BUILTIN_ID, BUILTIN_PATH
from llm_backend.engine import EngineConfig
from llm_backend.engine.messages import Adapter
from llm_backend.errors import InvalidRequest
from llm_backend.extras import is_installed, missing_engine_hint, needs_engine
from llm_backend.home_folder import expand_home
from llm_backend.json_types import JsonMapping
from llm_backend.model_files import (
    DRAWING_PARTS,
    DiarizationFiles,
    DiffusionFile,
    HeaderError,
    ModelFile,
    ModelFileMissing,
    PlanRequest,
    RecognizerFiles,
    SpeakingFiles,
    VoiceFiles,
    WhisperHeader,
    find_model_file,
    model_name,
    read_gguf_voice,
)
from llm_backend.settings import BUILTIN, Settings, SettingsError
from llm_backend.settings.images import ImageModelSettings
from llm_backend.settings.model_entry import AdapterSettings, ChatTurnFrames, ModelSettings


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A local model: its names, its chat format and its engine.

    `personality` names the default one of `personalities`, for requests with the plain name.
    `defaults` are default fields of requests. `memory_bytes` None means that the memory is
    estimated. `plan_request` is None if the model is not a language model: its `engine` is used
    as it is, without a plan for this machine's memory. Models of other kinds have files of their
    own: `voice` is for speech, `diarization` for telling speakers apart, `recognizer` for
    transcription by a NeMo model, and `image_setup` for drawing.
    """

    card: ModelCard
    aliases: tuple[str, ...]
    tool_format: str | None
    chat_format: ChatFormat | None
    personalities: Mapping[str, str]
    personality: str | None
    defaults: JsonMapping
    vector_stores: tuple[str, ...]
    engine: EngineConfig
    loads_at_start: bool
    idle_unload_s: float | None
    memory_bytes: int | None
    plan_request: PlanRequest | None = None
    voice: SpeakingFiles | None = None
    diarization: DiarizationFiles | None = None
    recognizer: RecognizerFiles | None = None
    image_setup: LocalImageSetup | None = None

    @property
    def names(self) -> Mapping[str, tuple[str, str | None]]:
        """All names of the model, each with the plain name and the personality in it."""
        plain = (self.card.id, *self.aliases)
        chosen = {f"{name}:{one}": (name, one) for name in plain for one in self.personalities}
        return {**{name: (name, None) for name in plain}, **chosen}


def build_served_models(settings: Settings) -> list[ServedModel]:
    """Builds the local models in the order of the settings; names are unique."""
    named = [_entry(model) for model in settings.models]
    found = find_folder_models(settings, named) if settings.serve_models_folder else []
    entries = [*named, *(one.entry for one in found)]
    if entries and not is_installed("local"):
        raise SettingsError(needs_engine(f"The model `{entries[0].id or entries[0].path}`"))
    paths = [_model_path(settings, entry.path) for entry in entries]
    ids = [_id(entry, path) for entry, path in zip(entries, paths, strict=True)]
    for index, name in enumerate(ids):
        if name in ids[:index]:
            raise SettingsError(f"Two models are named `{name}`; give one of them another `id`.")
    names_in_folder = {path: one.name for path, one in zip(paths[len(named) :], found, strict=True)}
    aliases = per_model_settings.aliases(settings, ids)
    formats = per_model_settings.tool_formats(settings, ids)
    drafts = per_model_settings.draft_models(settings, ids)
    served: list[ServedModel] = []
    for name, path, entry in zip(ids, paths, entries, strict=True):
        model = _served_model(
            settings, name, path, entry, drafts.get(name), names_in_folder.get(path)
        )
        model = replace(
            model,
            aliases=(*entry.aliases, *(one for one, of in aliases.items() if of == name)),
            tool_format=model.tool_format or formats.get(name),
        )
        served += (model, *_adapter_models(settings, model, entry))
    _check_names(served)
    return served


def check_named_models(settings: Settings, served: Sequence[ServedModel]) -> None:
    """Raises if `moderation_model`, `query_model` or `embedding_model` is not served."""
    names = {"moderation": settings.moderation_model, "query": settings.query_model}
    for purpose, name in names.items():
        if name is not None and not any(name in model.names for model in served):
            raise SettingsError(
                f"The {purpose} model `{name}` is not served.{missing_engine_hint()}"
            )
    name = settings.embedding_model
    is_here = name in [model.card.id for model in served]
    if name is not None and not is_here and not settings.has_relay_upstream:
        raise SettingsError(
            f"The embedding model `{name}` is not served under this name.{missing_engine_hint()}"
        )


def _entry(model: str | ModelSettings) -> ModelSettings:
    return ModelSettings.model_validate({"path": model}) if isinstance(model, str) else model


def _id(entry: ModelSettings, path: Path) -> str:
    return entry.id or (BUILTIN_ID if entry.path == BUILTIN else model_name(path))


def _served_model(
    settings: Settings,
    name: str,
    path: Path,
    entry: ModelSettings,
    draft: Path | None,
    name_in_folder: str | None,
) -> ServedModel:
    file = engine_configs.read_servable_file(path)
    projector = find_projector(settings, entry.mmproj)
    voice = _voice_files(path, file, projector)
    diarization = file if isinstance(file, DiarizationFiles) else None
    recognizer = file if isinstance(file, RecognizerFiles) else None
    audio = voice or recognizer or diarization
    image_setup = _image_setup(settings, name, file) if isinstance(file, DiffusionFile) else None
    engine = engine_configs.build_engine_config(
        settings, entry, path, file, draft, projector, image_setup
    )
    return ServedModel(
        card=_card(name, path, file, entry, projector, name_in_folder, audio, image_setup),
        aliases=(),
        tool_format=per_model_settings.check_tool_format(entry.tool_format),
        chat_format=_chat_format(name, entry.chat_template),
        personalities=dict(entry.personalities),
        personality=_personality(name, entry),
        defaults={**entry.defaults.fields(), **_grammar(entry)},
        vector_stores=entry.vector_stores,
        engine=engine,
        loads_at_start=engine_configs.override(entry.load, settings.load_models) == "start"
        and (audio is None or is_installed(audio.extra))
        and (image_setup is None or (is_installed("draw") and not image_setup.missing)),
        idle_unload_s=engine_configs.override(entry.idle_unload_s, settings.idle_unload_s),
        memory_bytes=entry.memory,
        plan_request=engine_configs.build_plan_request(settings, entry, engine),
        voice=voice,
        diarization=diarization,
        recognizer=recognizer,
        image_setup=image_setup,
    )


def _model_path(settings: Settings, name: str) -> Path:
    try:
        return BUILTIN_PATH if name == BUILTIN else find_model_file(name, settings.models_folder)
    except ModelFileMissing as error:
        raise SettingsError(str(error)) from error


def _voice_files(
    path: Path, file: ModelFile, projector: NamedProjector | None
) -> SpeakingFiles | None:
    """Returns the files of a voice; None for another model. Requests report a missing extra."""
    if isinstance(file, VoiceFiles):
        return file
    if projector is None or not projector.speaks:
        return None
    try:
        return read_gguf_voice(path, projector.path)
    except HeaderError as error:
        raise SettingsError(str(error)) from error


def _image_setup(settings: Settings, name: str, file: DiffusionFile) -> LocalImageSetup:
    """Returns the setup of a model that draws. Requests report a missing extra or file."""
    options = settings.image_models.get(name, ImageModelSettings())
    try:
        return LocalImageSetup(
            file=file,
            parts=drawing_parts(options, settings.models_folder),
            steps=options.steps.model_dump(),
            parameters=local_parameters(options.parameters),
            pixels_limit=min(options.pixels_limit, settings.drawn_pixels_limit),
        )
    except ValueError as error:
        raise SettingsError(f"`image_models.{name}.parameters`: {error}.") from error


def drawing_parts(options: ImageModelSettings, folder: Path) -> Mapping[str, Path]:
    """Returns the files of a model's parts. Raises `SettingsError` for one that is missing."""
    parts = {}
    for part in DRAWING_PARTS:
        named: Path | None = getattr(options, part)
        if named is None:
            continue
        path = expand_home(named)
        path = path if path.is_file() else folder / path
        if not path.is_file():
            raise SettingsError(f"Cannot read the file {named} (`{part}` in `image_models`).")
        parts[part] = path
    return parts


def _card(
    name: str,
    path: Path,
    file: ModelFile,
    entry: ModelSettings,
    projector: NamedProjector | None,
    name_in_folder: str | None,
    audio_files: SpeakingFiles | RecognizerFiles | DiarizationFiles | None,
    image_setup: LocalImageSetup | None,
) -> ModelCard:
    created_at = int(min(path.stat().st_mtime, time.time()))
    more: tuple[tuple[str, Any], ...] = ()
    if entry.path == BUILTIN:
        more = (("description", BUILTIN_DESCRIPTION),)
    if name_in_folder is not None:
        more = (("file", name_in_folder),)
    if isinstance(file, WhisperHeader):
        more = (*more, ("input_modalities", ("audio",)), ("output_modalities", ("text",)))
    if audio_files is not None:
        hears = isinstance(audio_files, RecognizerFiles | DiarizationFiles)
        modalities = "input_modalities" if hears else "output_modalities"
        more = (*more, ("description", audio_files.description), (modalities, ("audio",)))
    if isinstance(audio_files, RecognizerFiles):
        more = (*more, ("output_modalities", ("text",)))
    if image_setup is not None:
        description = image_setup.file.description
        more = (*more, ("description", description), ("output_modalities", ("image",)))
    if entry.personalities:
        more = (*more, ("personalities", tuple(entry.personalities)))
    if projector is not None:
        created_at = max(created_at, int(min(projector.path.stat().st_mtime, time.time())))
    if projector is not None and audio_files is None:
        more = (*more, ("input_modalities", ("text", *projector.modalities)))
    return ModelCard(id=name, created_at=created_at, owned_by="llm-backend", more=more)


def _check_names(served: Sequence[ServedModel]) -> None:
    owners = {BUILTIN_VOICE: BUILTIN_VOICE}
    for model in served:
        for name in (model.card.id, *model.aliases, *list(model.names)[1 + len(model.aliases) :]):
            if name in owners:
                raise SettingsError(
                    f"The name `{name}` of the model `{model.card.id}` is taken by "
                    f"`{owners[name]}`; every name must belong to one model."
                )
            owners[name] = model.card.id


def _adapter_models(
    settings: Settings, model: ServedModel, entry: ModelSettings
) -> list[ServedModel]:
    """Returns one model per adapter, with an engine of its own, loaded by its first request: an
    adapter changes everything that an engine computes."""
    adapted = []
    for name, value in entry.adapters.items():
        one = value if isinstance(value, AdapterSettings) else AdapterSettings(path=value, scale=1)
        path = expand_home(one.path)
        engine_configs.check_gguf_file(path)
        card = replace(
            model.card,
            id=f"{model.card.id}:{name}",
            created_at=max(model.card.created_at, int(path.stat().st_mtime)),
            more=(*model.card.more, ("adapter_of", model.card.id)),
        )
        adapted.append(
            replace(
                model,
                card=card,
                aliases=tuple(f"{alias}:{name}" for alias in model.aliases),
                engine=structs.replace(
                    model.engine, adapters=(Adapter(path=str(path), scale=one.scale),)
                ),
                loads_at_start=False,
            )
        )
    return adapted


def _grammar(entry: ModelSettings) -> Mapping[str, str]:
    if entry.grammar_file is None:
        return {}
    path = expand_home(entry.grammar_file)
    try:
        return {"grammar": path.read_text(encoding="utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Cannot read the grammar {path}: {error}.") from error


def _personality(name: str, entry: ModelSettings) -> str | None:
    personality = entry.personality
    if personality is not None and personality not in entry.personalities:
        raise SettingsError(
            f"The model `{name}` has no personality `{personality}`; "
            f"its personalities are: {', '.join(entry.personalities) or 'none'}."
        )
    return personality


def _chat_format(name: str, template: str | ChatTurnFrames | None) -> ChatFormat | None:
    """Returns the configured chat template, tested; None for the model's own."""
    if template is None:
        return None
    chat_format = _chat_format_of(name, template)
    try:
        ChatTemplate(chat_format.source)
    except InvalidRequest as error:
        raise SettingsError(
            f"The chat template of the model `{name}` cannot be used: {error.__cause__}."
        ) from error
    return chat_format


def _chat_format_of(name: str, template: str | ChatTurnFrames) -> ChatFormat:
    if isinstance(template, ChatTurnFrames):
        return format_of_turns(**template.model_dump())
    if template in CHAT_FORMATS:
        return CHAT_FORMATS[template]
    if "{{" in template or "{%" in template:
        return ChatFormat(source=template)
    try:
        return ChatFormat(source=expand_home(template).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The chat template `{template}` of the model `{name}` is neither a readable file nor "
            f"Jinja text nor a known name; the names are: {', '.join(CHAT_FORMATS)}."
        ) from error
