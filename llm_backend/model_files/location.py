"""Locates model files: by path, name in the models folder, or `OWNER/NAME[:QUANT]`.

A model of the hub is stored at `OWNER/NAME/` in the models folder, with the hub's file names.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from llm_backend.close_names import closest_name, did_you_mean
from llm_backend.home_folder import expand_home
from llm_backend.installation import command
from llm_backend.model_files.diarization import (
    DiarizationFiles,
    is_diarization_file,
    read_diarization,
)
from llm_backend.model_files.diffusion import DiffusionFile, is_diffusion_file, read_diffusion
from llm_backend.model_files.header import GgufHeader, model_parts, read_header
from llm_backend.model_files.onnx_voice import VoiceFiles, is_voice_file, read_voice, voices_in
from llm_backend.model_files.recognizer import (
    RecognizerFiles,
    is_recognizer_file,
    read_recognizer,
    recognizers_in,
)
from llm_backend.model_files.whisper import WhisperHeader, is_whisper_file, read_whisper_header

ModelFile = (
    GgufHeader | WhisperHeader | VoiceFiles | RecognizerFiles | DiarizationFiles | DiffusionFile
)
"""Contents of a model's file; their type depends on the kind of model."""

HUB_NAME = re.compile(r"([\w.-]+)/([\w.-]+?)(?::([\w.-]+))?")
_PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
_NOT_A_MODEL = re.compile(r"(mmproj|-(?!00001)\d{5}-of-\d{5}\.gguf$)", re.IGNORECASE)
"""Matches multimodal projectors, and the later parts of a split model."""


class ModelFileMissing(Exception):
    """Raised if there is no such file; the message is one sentence that says what to do."""


def find_model_file(name: str, folder: Path) -> Path:
    """Returns the file that `name` selects: the first part of a split model, the model of a folder.

    Raises `ModelFileMissing` if there is none, or if the name is ambiguous.
    """
    path = _path(name, folder)
    if path is not None and path.is_dir():
        is_hub_name = HUB_NAME.fullmatch(name) is not None
        path = None if is_hub_name and not _folder_models(path) else _only_model(path)
    if path is not None:
        return path
    try:
        hub = _hub_name(name, "model", folder)
        return _stored_file(name, folder / hub[1] / hub[2], hub[3])
    except ModelFileMissing as error:
        raise ModelFileMissing(f"{error}{did_you_mean(_similar_name(name, folder))}") from error


def find_projector_file(name: str, folder: Path) -> Path:
    """Returns the GGUF file of the multimodal projector (mmproj) that `name` selects.

    A quantization selects one of several projectors; with a single one it is ignored. Raises
    `ModelFileMissing` if there is none, or if the name is ambiguous.
    """
    path = _path(name, folder)
    if path is not None:
        return path
    hub = _hub_name(name, "projector", folder)
    stored = folder / hub[1] / hub[2]
    files = sorted(stored.rglob("*.gguf"))
    projectors = [file for file in files if _PROJECTOR.search(file.name)]
    paths = {str(file.relative_to(stored)): file for file in projectors}
    selected = select_by_quant(list(paths), hub[3]) if hub[3] else ()
    matching = [paths[one] for one in selected] or projectors
    if not matching:
        raise ModelFileMissing(
            f"The projector of `{name}` is not in {folder}: "
            f"`{command(f'models pull --mmproj {name}')}` brings it."
        )
    if len(matching) > 1:
        names = ", ".join(file.name for file in matching)
        raise ModelFileMissing(f"The projector of `{name}` may be {names}: name the file.")
    return matching[0]


def _path(name: str, folder: Path) -> Path | None:
    """Returns the file at the path `name`, as it is or in the folder; None if there is none."""
    path = expand_home(name)
    if path.exists():
        return path
    if path.is_absolute():
        return None
    inside = folder / path
    return inside if inside.is_file() or (inside.is_dir() and _folder_models(inside)) else None


def _only_model(folder: Path) -> Path:
    """Returns the model of a folder."""
    found = _folder_models(folder)
    if not found:
        raise ModelFileMissing(
            f"{folder} is a folder without a voice or another model that is a folder. "
            "A voice must have a model (.onnx) and a tokens.txt. "
            "A NeMo model that transcribes must have encoder.onnx or model.onnx, and a tokens.txt. "
            "A model that tells speakers apart must have segmentation.onnx and embedding.onnx."
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ModelFileMissing(f"The model of {folder} may be {names}: name the file.")
    return found[0]


def _folder_models(folder: Path) -> list[Path]:
    """Returns the models that consist of this folder's files, not of those in folders below."""
    speakers = filter(is_diarization_file, folder.glob("*.onnx"))
    return [*voices_in(folder), *recognizers_in(folder), *speakers]


def is_folder_model(path: Path) -> bool:
    """Returns True for a file of a model that consists of a folder, and has its name: a voice, a
    NeMo model, or a model that tells speakers apart."""
    return is_voice_file(path) or is_recognizer_file(path) or is_diarization_file(path)


def _hub_name(name: str, kind: str, folder: Path) -> re.Match[str]:
    hub = HUB_NAME.fullmatch(name)
    if hub is None or name.endswith((".gguf", ".bin", ".onnx", ".safetensors")):
        path = expand_home(name)
        place = "" if path.is_absolute() else f", here or in {folder}"
        raise ModelFileMissing(f"Cannot read the {kind} {path}: there is no such file{place}.")
    return hub


def _stored_file(name: str, folder: Path, quant: str | None) -> Path:
    files = {str(file.relative_to(folder)): file for file in list_model_files(folder)}
    paths = list(files) if quant is None else select_by_quant(list(files), quant)
    if not paths:
        raise ModelFileMissing(
            f"The model `{name}` is not in {folder}: `{command(f'models pull {name}')}` brings it."
        )
    if len(paths) > 1:
        raise ModelFileMissing(f"`{name}` may be {', '.join(paths)}: say which with `:QUANT`.")
    return files[paths[0]]


def _names_in(folder: Path) -> Iterator[str]:
    """Yields the names of the folder's models: their files, and `OWNER/NAME` of those of a hub."""
    for file in list_model_files(folder):
        path = file.relative_to(folder)
        yield from (str(path), *({str(path.parent)} - {"."}))


def _similar_name(name: str, folder: Path) -> str | None:
    """Returns the name of another model that resembles `name`, as a whole or after its last slash;
    None if there is no such model."""
    names = [one for one in ("builtin", *_names_in(folder)) if one != name]
    ends = {one.rpartition("/")[2]: one for one in names}
    return closest_name(name, names) or ends.get(closest_name(name, ends) or "")


def list_model_files(folder: Path) -> list[Path]:
    """Returns the models of a folder, sorted by path: only the first part of a split model, and no
    projectors."""
    files = [file for file in folder.rglob("*.gguf") if not _NOT_A_MODEL.search(file.name)]
    whisper = [file for file in folder.rglob("*.bin") if is_whisper_file(file)]
    folders = [file for file in folder.rglob("*.onnx") if is_folder_model(file)]
    drawing = [file for file in folder.rglob("*.safetensors") if is_diffusion_file(file)]
    return sorted([*files, *whisper, *folders, *drawing])


def model_name(path: Path) -> str:
    """Returns the name of a model: its folder's if it is a folder, else its file's without the
    suffix."""
    return path.resolve().parent.name if is_folder_model(path) else path.stem


def read_model_file(path: Path) -> ModelFile:
    """Reads a model's file. Raises `HeaderError` if the file is not a model, or is truncated."""
    if is_voice_file(path):
        return read_voice(path)
    if is_recognizer_file(path):
        return read_recognizer(path)
    if is_diarization_file(path):
        return read_diarization(path)
    if is_whisper_file(path):
        return read_whisper_header(path)
    if path.suffix == ".safetensors" or is_diffusion_file(path):
        return read_diffusion(path)
    return read_header(path)


def select_by_quant(paths: Sequence[str], quant: str) -> list[str]:
    """Returns the paths of files in a repository that contain `quant`. Of several, these are the
    file of this name, else those that have it between separators: `Q6_K` is not `Q6_K_L`."""
    matching = [path for path in paths if quant.lower() in path.lower()]
    named = [path for path in matching if _is_named(path, quant)]
    return named or [path for path in matching if has_part(path, quant)] or matching


def has_part(path: str, part: str) -> bool:
    """Returns True if a path has this part between separators."""
    return re.search(rf"(^|[./-]){re.escape(part)}([./-])", path, re.IGNORECASE) is not None


def _is_named(file: str, name: str) -> bool:
    """Returns True if a file is `NAME` or `ggml-NAME`, with or without its suffix."""
    plain = file.lower().rpartition("/")[2]
    names = {plain, plain.rpartition(".")[0]}
    return name.lower() in names | {one.removeprefix("ggml-") for one in names}


def remove_model(path: Path, folder: Path) -> None:
    """Removes a model's files, or its `model_folder`, and folders below `folder` that are empty
    then. Raises `OSError`."""
    own = model_folder(path, folder)
    parent = path.parent if own is None else own.parent
    if own is not None and own.is_symlink():
        own.unlink()
    elif own is not None:
        shutil.rmtree(own)
    else:
        for part in model_parts(path):
            part.unlink(missing_ok=True)
    parent, root = Path(os.path.abspath(parent)), Path(os.path.abspath(folder))
    while parent != root and parent.is_relative_to(root) and not any(parent.iterdir()):
        parent.rmdir()
        parent = parent.parent


def model_folder(path: Path, folder: Path) -> Path | None:
    """Returns the folder below `folder` that consists of this model alone; None if there is no such
    folder."""
    own, root = Path(os.path.abspath(path)).parent, Path(os.path.abspath(folder))
    is_below = own != root and own.is_relative_to(root)
    has_one = is_below and is_folder_model(path) and list_model_files(own) == [own / path.name]
    return own if has_one else None
