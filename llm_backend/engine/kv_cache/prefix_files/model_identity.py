"""Identity of a model for its prefix files: its settings, and a digest of its files."""

import glob
import hashlib
import re
from pathlib import Path

from llm_backend.engine.messages import LoadModel

FOLDER_NAME = re.compile(r"[A-Za-z0-9._-]*-[0-9a-f]{16}")

_DIGEST_BYTES = 16
_DIGESTED_BYTES = 1 << 20  # bytes at both ends of a file: header and vocabulary, and weights
_PART = re.compile(r"-\d{5}-(of-\d{5}\.gguf)$")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")  # for the name of a folder


def folder_name(config: LoadModel) -> str:
    """Folder name by model and settings, so that differently configured engines do not remove
    each other's files as outdated."""
    setup = (
        str(config.model_path.absolute()),
        [(str(Path(one.path).absolute()), one.scale) for one in config.adapters],
        *(config.cache_type, config.flash_attention, config.kv_unified),
        *(config.context_tokens, config.default_context_tokens),
    )
    digest = hashlib.blake2b(repr(setup).encode(), digest_size=8).hexdigest()
    return f"{_UNFIT.sub('-', config.model_path.stem)[:60]}-{digest}"


def model_digest(config: LoadModel, state_format: str) -> bytes:
    """Digest that changes with each file of the model or of an adapter, and with the native
    code. Raises `OSError`."""
    code = f"{state_format}, {config.use_extra_buffers}, {config.prefill_kernels}"
    digest = hashlib.blake2b(f"{code}, {folder_name(config)}".encode(), digest_size=_DIGEST_BYTES)
    for path in (*_parts(config.model_path), *(Path(one.path) for one in config.adapters)):
        status = path.stat()
        digest.update(f"{path.name}:{status.st_size}:{status.st_mtime_ns}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_DIGESTED_BYTES))
            file.seek(max(0, status.st_size - _DIGESTED_BYTES))
            digest.update(file.read(_DIGESTED_BYTES))
    return digest.digest()


def _parts(model: Path) -> list[Path]:
    """The files of a model, which may be split into several."""
    found = _PART.search(model.name)
    if found is None:
        return [model]
    return sorted(model.parent.glob(f"{glob.escape(model.name[: found.start()])}-?????-{found[1]}"))
