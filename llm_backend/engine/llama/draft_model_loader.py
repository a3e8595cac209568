"""Loading of draft models: whole models, and EAGLE-3 drafts."""

from pathlib import Path

from msgspec.structs import replace

from llm_backend.engine.llama.eagle import open_eagle_head
from llm_backend.engine.llama.header import check_file
from llm_backend.engine.llama.log import LlamaLog
from llm_backend.engine.llama.model import LlamaModel
from llm_backend.engine.llama.native_head import NativeHead
from llm_backend.engine.messages import LoadModel, ModelKind
from llm_backend.engine.model import LoadError

_EAGLE = "eagle3"
_EAGLE_TOKENS = 128  # limit of a pass, in which each token has logits
# other drafts that need states of the model for which they draft
_UNSUPPORTED = frozenset({"dflash", "gemma4-assistant"})


def is_eagle(path: Path) -> bool:
    """True for the file of an EAGLE-3 draft. Raises `LoadError` if it cannot be read."""
    return check_file(path).architecture == _EAGLE


def load_eagle_head(model: LlamaModel, config: LoadModel, log: LlamaLog) -> NativeHead:
    """Loads the EAGLE-3 draft of `config.draft_model_path`, and verifies it by a pass. Raises
    `LoadError` if it cannot draft for `model`."""
    own = replace(_draft_config(model, config), batch_tokens=_EAGLE_TOKENS)
    draft = LlamaModel(own, log, target=model)
    _check_vocabulary(model, draft, config.model_path, own.model_path)
    return open_eagle_head(model, check_file(config.model_path), draft, check_file(own.model_path))


def load_draft_model(model: LlamaModel, config: LoadModel, log: LlamaLog) -> LlamaModel:
    """Loads the model of `config.draft_model_path` with the settings of `model`, and verifies it by
    a pass. It has as many slots as `model`, of the same context or of its own trained context if
    that is shorter. Raises `LoadError` if it cannot draft for `model`."""
    own = _draft_config(model, config)
    path = own.model_path
    architecture = check_file(path).architecture
    if architecture in _UNSUPPORTED:
        raise LoadError(
            f"{path} cannot draft for {config.model_path}: drafts of the architecture "
            f"{architecture} need states of its layers, which is not supported"
        )
    draft = LlamaModel(own, log)
    if draft.kind is not ModelKind.CHAT:
        raise LoadError(f"{path} generates nothing, so it cannot draft")
    _check_vocabulary(model, draft, config.model_path, path)
    draft.verify()
    if not draft.can_roll_back:
        raise LoadError(f"{path} has a state that cannot be truncated, so it cannot draft")
    return draft


def _draft_config(model: LlamaModel, config: LoadModel) -> LoadModel:
    """Returns the draft model's start command. Raises `LoadError` if none can draft for `model`."""
    path = config.draft_model_path
    assert path is not None, "a draft model is configured"
    if model.kind is not ModelKind.CHAT:
        raise LoadError(f"{config.model_path} generates nothing, so {path} cannot draft for it")
    if not model.can_roll_back:
        raise LoadError(
            f"{config.model_path} has a state that cannot be truncated, so {path} cannot draft "
            f"for it"
        )
    return replace(
        config,
        model_path=path,
        draft_model_path=None,
        draft_tokens=0,  # nothing drafts for it
        context_tokens=None,
        default_context_tokens=model.context_tokens,
        cells=None,
        adapters=(),
        projector_path=None,
        kind=None,
    )


def _check_vocabulary(model: LlamaModel, draft: LlamaModel, path: Path, draft_path: Path) -> None:
    difference = model.vocabulary.difference(draft.vocabulary)
    if difference is not None:
        raise LoadError(
            f"{draft_path} cannot draft for {path}, because its vocabulary differs: {difference}"
        )
