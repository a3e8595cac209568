"""Downloads GGUF files and Whisper models from the Hugging Face hub, with its own library.

A file is downloaded to `NAME.part`, resumed there after an interruption, and renamed when it is
complete and has the hub's checksum.
"""

import fcntl
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from llm_backend.extras import install_command
from llm_backend.model_files import has_part, may_be_whisper, select_by_quant

PREFERRED = "Q4_K_M"  # the usual balance of size and quality
PREFERRED_PROJECTOR = "F16"  # the smallest without a noticeable loss
_PROJECTOR = re.compile(r"mmproj[^/]*$", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")
_CHUNK = 1 << 20
PIECE_BYTES = 40_000_000_000  # of one request: the hub's CDN serves at most 50 GB in one


class PullError(Exception):
    """Raised if a download fails; the message is one sentence that says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository; `sha256` is None for a small file in git, without LFS."""

    path: str
    size_bytes: int
    sha256: str | None


def pull(
    name: str,
    quant: str | None,
    folder: Path,
    *,
    with_projector: bool = False,
    endpoint: str | None = None,
    on_file: Callable[[HubFile], None] = lambda file: None,
    on_bytes: Callable[[int], None] = lambda size: None,
) -> list[Path]:
    """Downloads the missing files of the model `name` (`OWNER/NAME`) to `folder`; returns the
    paths of all its files.

    `quant` is a part of the file's name, like `Q8_0`; None chooses the repository's only model or
    its `Q4_K_M`. `with_projector` downloads its projector, too. `endpoint` None is
    the hub, or `HF_ENDPOINT`. `on_file` is called with each file before its download, `on_bytes`
    with the number of new bytes, first with those left by an interruption. Raises `PullError`; an
    interruption keeps the partial file.
    """
    hub = _library()
    with _translate_errors(hub, name):
        files = _model_files(hub, name, endpoint)
    chosen = choose_files(name, quant, files)
    if with_projector:
        chosen.append(choose_projector(name, files))
    targets = [folder / _safe_path(file.path) for file in chosen]
    missing = [
        file for file, path in zip(chosen, targets, strict=True) if not _is_downloaded(file, path)
    ]
    with _translate_disk_errors(folder):
        _check_room(folder, missing)
    for file, target in zip(chosen, targets, strict=True):
        if file in missing:
            on_file(file)
            with _translate_disk_errors(folder), _translate_errors(hub, name):
                _download_file(hub, name, file, target, endpoint, on_bytes)
    return targets


def choose_files(name: str, quant: str | None, files: Sequence[HubFile]) -> list[HubFile]:
    """Returns all parts of the model that matches; raises `PullError` for none or several."""
    models: dict[str, list[HubFile]] = {}
    for file in sorted(files, key=lambda one: one.path):
        if not _PROJECTOR.search(file.path):
            models.setdefault(_PART.sub("", file.path), []).append(file)
    if not models:
        raise PullError(
            f"`{name}` has no GGUF files and no `ggml-*.bin`; there may be a repository "
            f"`{name}-GGUF`."
        )
    matching = list(models) if quant is None else select_by_quant(list(models), quant)
    if quant is None and len(matching) > 1:
        matching = [model for model in matching if has_part(model, PREFERRED)] or matching
    if len(matching) == 1:
        return models[matching[0]]
    names = ", ".join(matching or models)
    raise PullError(f"`{name}` has several models; choose one by `{name}:QUANT`: {names}.")


def choose_projector(name: str, files: Sequence[HubFile]) -> HubFile:
    """Returns a repository's only projector, or its `F16`; raises `PullError` if it has neither."""
    projectors = [file for file in files if _PROJECTOR.search(file.path)]
    exact = re.compile(rf"(^|[./_-]){PREFERRED_PROJECTOR}([./_-])", re.IGNORECASE)
    matching = [file for file in projectors if exact.search(file.path)] or projectors
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise PullError(f"`{name}` has no projector: there is no mmproj file.")
    raise PullError(
        f"`{name}` has several projectors and no {PREFERRED_PROJECTOR}: "
        f"{', '.join(file.path for file in matching)}."
    )


def _library() -> Any:  # Any: an optional library
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ImportError as error:
        raise PullError(
            f"Pulling a model needs the hub's client library: {install_command('hub')}."
        ) from error
    return huggingface_hub


def _model_files(hub: Any, name: str, endpoint: str | None) -> list[HubFile]:
    info = hub.HfApi(endpoint=endpoint).model_info(name, files_metadata=True)
    return [
        HubFile(path=one.rfilename, size_bytes=one.size, sha256=one.lfs.sha256 if one.lfs else None)
        for one in info.siblings or ()
        if one.rfilename.endswith(".gguf") or may_be_whisper(one.rfilename)
    ]


def _safe_path(path: str) -> Path:
    """Returns a repository's path; raises `PullError` if it leads out of the folder."""
    given = PurePosixPath(path)
    if given.is_absolute() or ".." in given.parts or "\\" in path:
        raise PullError(f"The repository names a file `{path}`, which would lie elsewhere.")
    return Path(*given.parts)


def _is_downloaded(file: HubFile, target: Path) -> bool:
    return target.is_file() and target.stat().st_size == file.size_bytes


def _check_room(folder: Path, missing: Sequence[HubFile]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_part_path(folder / _safe_path(file.path)) for file in missing]
    present = sum(part.stat().st_size for part in parts if part.is_file())
    needed = sum(file.size_bytes for file in missing) - present
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PullError(
            f"{folder} has {free / 1e9:.1f} GB left, and the download needs {needed / 1e9:.1f} GB."
        )


def _part_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


class _ProgressBar:
    """Stand-in for the progress bar (`tqdm_class`) of the hub's library. `reported` bytes of the
    file have been reported already."""

    def __init__(
        self, on_bytes: Callable[[int], None], reported: int, *, initial: int = 0, **_: object
    ) -> None:
        self.update = on_bytes
        on_bytes(initial - reported)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Has nothing to close."""


def _download_file(
    hub: Any,
    name: str,
    file: HubFile,
    target: Path,
    endpoint: str | None,
    on_bytes: Callable[[int], None],
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part_path(target)
    url = hub.hf_hub_url(name, file.path, endpoint=endpoint)
    with part.open("ab") as out:
        _lock(out, file)
        if out.tell() > file.size_bytes:
            out.truncate(0)
            out.seek(0)  # the library takes the position for the size
        reported = 0
        while (start := out.tell()) < file.size_bytes:
            end = min(file.size_bytes, start + PIECE_BYTES)
            piece = {} if file.size_bytes <= PIECE_BYTES else {"Range": f"bytes=0-{end - 1}"}
            hub.file_download.http_get(
                url,
                out,
                resume_size=start,  # the library adds it to the start of the range
                headers=hub.utils.build_hf_headers() | piece,
                expected_size=end,
                displayed_filename=target.name,
                tqdm_class=partial(_ProgressBar, on_bytes, reported),
            )
            reported = end
        out.flush()
        if file.sha256 is not None and _checksum(part) != file.sha256:
            part.unlink()
            message = f"{file.path} came with another checksum than the hub's; pull it again."
            raise PullError(message)
        part.replace(target)


def _lock(out: IO[bytes], file: HubFile) -> None:
    """Locks a partial file until it is closed. Raises `PullError` while another download has it."""
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PullError(f"{file.path} is being downloaded already; wait for its end.") from error


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()


@contextmanager
def _translate_errors(hub: Any, name: str) -> Iterator[None]:
    errors, where = hub.errors, hub.constants.ENDPOINT
    try:
        yield
    except PullError:
        raise
    except errors.GatedRepoError as error:
        raise PullError(
            f"`{name}` asks for its licence to be accepted: do that on its page, and set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PullError(
            f"There is no model `{name}` on {where}, or it is private: set HF_TOKEN."
        ) from error
    except errors.HFValidationError as error:
        raise PullError(f"`{name}` is not a valid model name: it is OWNER/NAME.") from error
    except errors.HfHubHTTPError as error:
        raise PullError(f"The hub refuses `{name}`: {_first_line(error)}") from error
    except (errors.OfflineModeIsEnabled, errors.HTTPError, ValueError) as error:
        raise PullError(
            f"The hub at {where} cannot be reached ({_first_line(error)}): what has come is kept, "
            "pull again when there is a connection."
        ) from error


@contextmanager
def _translate_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PullError(
            f"The download cannot be written to {error.filename or folder}: "
            f"{error.strerror or error}."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
