"""`llm-backend models show`: header, template and memory of a model file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.lists import COLUMNS, wrap
from llm_backend.cli.options import Config
from llm_backend.settings import BUILTIN, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from llm_backend.app.served_models import ServedModel
    from llm_backend.model_files import DiffusionFile, GgufHeader

_CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536, 131072)
PROJECTOR = "clip"  # architecture of every projector


def show(
    model: Annotated[
        str,
        typer.Argument(
            help="GGUF, safetensors or Whisper file, folder of a voice, a NeMo model or speakers, "
            "OWNER/NAME[:QUANT], or `builtin`."
        ),
    ],
    config: Config = None,
) -> None:
    """Print a model's header, chat template, projector, and memory for several contexts."""
    from llm_backend.builtin import BUILTIN_PATH
    from llm_backend.model_files import (
        VOICE_ARCHITECTURES,
        DiarizationFiles,
        DiffusionFile,
        HeaderError,
        ModelFileMissing,
        RecognizerFiles,
        VoiceFiles,
        WhisperHeader,
        find_model_file,
        read_model_file,
    )

    settings = load_settings({}, config)
    try:
        path = BUILTIN_PATH if model == BUILTIN else find_model_file(model, settings.models_folder)
        header = read_model_file(path)
    except (ModelFileMissing, HeaderError) as error:
        exit_with_error(str(error))
    match header:
        case DiffusionFile():
            _print_diffusion(path, header, settings)
            return
        case WhisperHeader():
            _print_model(
                path,
                f"Whisper model for {header.languages}: transcribes recordings.",
                f"{header.audio_layers} layers hear, {header.text_layers} layers write.",
                memory_bytes=header.memory_bytes,
            )
            return
        case VoiceFiles():
            description = f"{header.description[0].upper()}{header.description[1:]}"
            _print_model(
                path,
                f"{description}: reads texts aloud.",
                f"Speakers: {', '.join(header.speakers)}",
                *(
                    []
                    if header.phonemizer is None
                    else ["No lexicon: the program espeak-ng finds the phonemes of texts."]
                ),
                memory_bytes=header.memory_bytes,
            )
            return
        case RecognizerFiles():
            does = f"{header.description}: transcribes recordings."
            _print_model(path.parent, does, memory_bytes=header.memory_bytes)
            return
        case DiarizationFiles():
            does = f"Tells speakers apart: {header.description}."
            _print_model(path.parent, does, memory_bytes=header.memory_bytes)
            return
    _print_header(path, header)
    if header.architecture == PROJECTOR:
        print()
        print(wrap(_projector_line(path)))
        return
    _print_draft_heads(header)
    _print_template(header)
    _print_memory(path, header, settings)
    projectors = _projectors(path, settings)
    for projector in projectors:
        print(wrap(_projector_line(projector)))
    voice = VOICE_ARCHITECTURES.get(header.architecture)
    if voice is not None and not projectors:
        print(
            wrap(
                f"A voice ({voice}), which lacks the projector that makes its audio: name its"
                " file by `mmproj` in the model's entry of `models`."
            )
        )


def _print_header(path: Path, header: "GgufHeader") -> None:
    print(path)
    print(
        f"{header.parameters / 1e6:,.1f} M parameters in {header.tensors} tensors, "
        f"{header.weights_bytes / 1e6:,.1f} MB\n"
    )
    for key, value in sorted(header.values.items()):
        if value is not None and not key.startswith("tokenizer.chat_template"):
            print(f"{key} = {value}"[:COLUMNS])


def _print_draft_heads(header: "GgufHeader") -> None:
    from llm_backend.model_files import draft_head_count, draft_head_problem

    count, problem = draft_head_count(header), draft_head_problem(header)
    if count:
        use = "drafts tokens" if problem is None else f"not used, because {problem}"
        print()
        print(wrap(f"Draft heads: {count}, {use}"))


def _print_model(path: Path, *lines: str, memory_bytes: int) -> None:
    """Print the description and memory of a model that is not a language model."""
    print(path)
    for line in lines:
        print(wrap(line))
    print(f"Memory: {memory_bytes / 1e6:,.0f} MB")


def _print_diffusion(path: Path, checkpoint: "DiffusionFile", settings: Settings) -> None:
    """Print a model that draws, and the files that the settings give to it."""
    from llm_backend.app.served_models import drawing_parts
    from llm_backend.settings.images import ImageModelSettings

    options = settings.image_models.get(path.stem, ImageModelSettings())
    try:
        parts = drawing_parts(options, settings.models_folder)
    except SettingsError as error:
        exit_with_error(str(error))
    missing = ", ".join(f"{part}: FILE" for part in checkpoint.lacks(parts))
    _print_model(
        path,
        f"{checkpoint.description}. {checkpoint.parameters / 1e6:,.1f} M parameters.",
        f"The file also contains: {', '.join(checkpoint.held) or 'nothing'}.",
        *(f"{part}: {file}" for part, file in parts.items()),
        *([f"It needs more: `image_models: {{{path.stem}: {{{missing}}}}}`."] if missing else []),
        memory_bytes=checkpoint.memory_bytes(parts, options.pixels_limit),
    )


def _print_template(header: "GgufHeader") -> None:
    template = header.values.get("tokenizer.chat_template")
    print("\nChat template:" if template else "\nNo chat template; ChatML is used.")
    if template:
        print(template)


def _print_memory(path: Path, header: "GgufHeader", settings: Settings) -> None:
    """Print the memory for the slots and cell type of the settings, and the plan for this
    machine."""
    from rich.console import Console
    from rich.table import Table

    from llm_backend.app import engine_configs
    from llm_backend.app.model_planning import ModelPlanner
    from llm_backend.engine.process.device_list import find_devices
    from llm_backend.model_files import ModelShape, footprint, model_costs
    from llm_backend.settings.model_entry import ModelSettings

    costs, planner = model_costs(header), ModelPlanner(settings.memory_budget, find_devices)
    served = _served_model(path, settings)
    if served is None:
        entry = ModelSettings(path=str(path))
        engine = engine_configs.build_engine_config(settings, entry, path, header, None, None, None)
        request = engine_configs.build_plan_request(settings, entry, engine)
        assert request is not None, "a GGUF file without a projector is a language model"
        sentence = planner.plan_alone(costs, request).sentence
    else:
        request, planned = served.plan_request, planner.plan(served, [served])
        sentence = planned.engine.plan
        if request is None:
            print(f"\nMemory: {planned.bytes / 1e6:,.0f} MB")
            return
    trained = header.of_architecture("context_length") or _CONTEXTS[-1]
    slots = request.slots or ModelShape.slots
    title = f"Memory with {slots} slots, cells of {request.cache_type}"
    table = Table("context", "weights", "cells", "compute", "process", "in all", title=title)
    for size in sorted({size for size in _CONTEXTS if size < trained} | {trained}):
        one = footprint(costs, request.shape(slots, size))
        parts = (one.weights, one.cells, one.compute, one.process, one.total)
        table.add_row(str(size), *(f"{part / 1e6:,.0f} MB" for part in parts))
    Console(width=COLUMNS).print(table)
    print()
    print(wrap(f"On this machine, alone: {sentence}"))


def _served_model(path: Path, settings: Settings) -> "ServedModel | None":
    """Return the model of the settings that has this file; None if they serve none."""
    from llm_backend.app.served_models import build_served_models

    names = [one if isinstance(one, str) else one.path for one in settings.models]
    if not any(_has_file(one, path, settings) for one in names):
        return None
    try:
        served = build_served_models(settings)
    except SettingsError as error:
        entries = [one.path for one in settings.models if not isinstance(one, str)]
        if not any(_has_file(one, path, settings) for one in entries):
            return None  # the error is another model's, and this file has no settings of its own
        exit_with_error(str(error))
    return next(one for one in served if one.engine.model_path == path)


def _has_file(name: str, path: Path, settings: Settings) -> bool:
    """Return True if a name in the settings is that of this file."""
    from llm_backend.builtin import BUILTIN_PATH
    from llm_backend.model_files import ModelFileMissing, find_model_file

    if name == BUILTIN:
        return path == BUILTIN_PATH
    try:
        return find_model_file(name, settings.models_folder) == path
    except ModelFileMissing:
        return False


def _projectors(path: Path, settings: Settings) -> list[Path]:
    """Return the projectors that the settings give to this model, else those in its folder."""
    from llm_backend.model_files import ModelFileMissing, find_model_file, find_projector_file

    folder, named = settings.models_folder, []
    for entry in settings.models:
        if isinstance(entry, str) or entry.mmproj is None or entry.path == BUILTIN:
            continue
        try:
            if find_model_file(entry.path, folder) == path:
                named.append(find_projector_file(entry.mmproj, folder))
        except ModelFileMissing as error:
            exit_with_error(str(error))
    return named or sorted(path.parent.glob("*mmproj*.gguf"))


def _projector_line(projector: Path) -> str:
    """Describe a projector's inputs and memory in one line."""
    from llm_backend.model_files import (
        HeaderError,
        projector_footprint,
        projector_media,
        read_header,
    )

    try:
        header = read_header(projector)
        media = projector_media(header)
    except HeaderError as error:
        return f"Projector {projector}: {error}"
    abilities = (
        ("sees images", media.has_vision),
        ("hears and transcribes audio", media.has_audio),
        ("makes its model read texts aloud", media.has_speech),
    )
    does = " and ".join(name for name, has in abilities if has)
    return f"Projector {projector}: {does}, {projector_footprint(header) / 1e6:,.0f} MB"
