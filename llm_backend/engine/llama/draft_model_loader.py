"""Loading of a draft model."""

from msgspec.structs import replace

from llm_backend.engine.llama.header import check_file
from llm_backend.engine.llama.log import LlamaLog
from llm_backend.engine.llama.model import LlamaModel
from llm_backend.engine.messages import ModelKind, Start
from llm_backend.engine.model import LoadError

# drafts that are computed from inputs of the layers of the model that they draft for
_NEED_HIDDEN_STATES = frozenset({"dflash", "eagle3", "gemma4-assistant"})


def load_draft_model(model: LlamaModel, start: Start, log: LlamaLog) -> LlamaModel:
    """Load the model of `start.draft_model_path` with the settings of `model`, and verify it by
    a pass. It has as many slots of as many tokens, if it was trained for so many. Raises
    `LoadError` if it cannot draft for `model`."""
    path = start.draft_model_path
    assert path is not None, "a draft model is configured"
    if model.kind is not ModelKind.CHAT:
        raise LoadError(f"{start.model_path} generates nothing, so {path} cannot draft for it")
    if not model.can_roll_back:
        raise LoadError(
            f"{start.model_path} keeps a state that cannot be cut, so {path} cannot draft for it"
        )
    architecture = check_file(path).architecture
    if architecture in _NEED_HIDDEN_STATES:
        raise LoadError(
            f"{path} cannot draft for {start.model_path}: models like it ({architecture}) need "
            "states of its layers, which is not supported"
        )
    own = replace(
        start,
        model_path=path,
        draft_model_path=None,
        context_tokens=None,
        default_context_tokens=model.context_tokens,
        cells=None,
        adapters=(),
        projector_path=None,
        kind=None,
    )
    draft = LlamaModel(own, log)
    if draft.kind is not ModelKind.CHAT:
        raise LoadError(f"{path} generates nothing, so it cannot draft")
    difference = model.vocabulary.difference(draft.vocabulary)
    if difference is not None:
        raise LoadError(
            f"{path} cannot draft for {start.model_path}, as its vocabulary differs: {difference}"
        )
    draft.verify()
    if not draft.can_roll_back:
        raise LoadError(f"{path} keeps a state that cannot be cut, so it cannot draft")
    return draft
