"""Token ids in requests that name a local model by a name of OpenAI's. Clients make them with
`tiktoken`, in OpenAI's encoding. They are decoded to text for the model.
"""

import re
from collections.abc import Mapping, Sequence

from llm_backend.backends.local.token_files import TokenFiles
from llm_backend.errors import InvalidRequest
from llm_backend.offload import offload

Inputs = Sequence[str | Sequence[int]]

_ENCODINGS = {
    "cl100k_base": re.compile(
        r"(?:openai/)?"
        r"(?:text-embedding-(?:3-|ada-002)|gpt-3\.5-turbo|gpt-4(?![o.\d])|davinci-002|babbage-002)"
    ),
    "o200k_base": re.compile(
        r"(?:openai/)?(?:gpt-4o|gpt-4\.\d|gpt-[5-9]|o[1-9](?:$|-)|chatgpt-4o)"
    ),
}


async def decode_foreign_tokens(
    files: TokenFiles, model: str, inputs: Inputs, field: str
) -> Inputs:
    """Returns the inputs with foreign token ids decoded; `field` is their name in the request.
    Raises `InvalidRequest` for tokens that cannot be decoded."""
    encoding = next((name for name, names in _ENCODINGS.items() if names.match(model)), None)
    if encoding is None or all(isinstance(one, str) for one in inputs):
        return inputs
    pieces = await files.load(encoding)
    if pieces is None:
        raise InvalidRequest(
            f"Token ids for the model `{model[:80]}` are read in OpenAI's encoding `{encoding}`, "
            "whose file this server lacks (setting `tiktoken_dir`). Send texts instead: in "
            "LangChain with `check_embedding_ctx_length=False`.",
            param=field,
        )
    return await offload(_texts, pieces, encoding, inputs, field)


def _texts(pieces: Mapping[int, bytes], encoding: str, inputs: Inputs, field: str) -> list[str]:
    return [
        one if isinstance(one, str) else _text(pieces, encoding, one, f"{field}[{index}]")
        for index, one in enumerate(inputs)
    ]


def _text(pieces: Mapping[int, bytes], encoding: str, tokens: Sequence[int], where: str) -> str:
    """Decodes token ids; half a character at either end becomes a replacement character."""
    for token in tokens:
        if token not in pieces:
            raise InvalidRequest(f"`{encoding}` has no token {token}.", param=where)
    return b"".join(pieces[token] for token in tokens).decode("utf-8", "replace")
