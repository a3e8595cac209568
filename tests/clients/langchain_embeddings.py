"""LangChain's embeddings of texts, sent as ids of OpenAI's encoding and as texts: run with a base
URL."""

import json
import sys

from langchain_openai import OpenAIEmbeddings
from openai import BadRequestError

TEXTS = ["The cat sleeps on the sofa.", "Grüße aus Köln, 東京 and 😀!", "x"]


def embedded(*, as_ids: bool) -> list[list[float]]:
    """The vectors; ids are made by `tiktoken`."""
    model = OpenAIEmbeddings(
        base_url=sys.argv[1], api_key="none", model="text-embedding-3-small",
        check_embedding_ctx_length=as_ids, max_retries=0,
    )  # fmt: skip
    return model.embed_documents(TEXTS)


try:
    sys.stdout.write(json.dumps([embedded(as_ids=False), embedded(as_ids=True)]))
except BadRequestError as error:
    sys.stdout.write(f"{type(error).__name__}: {error}")
