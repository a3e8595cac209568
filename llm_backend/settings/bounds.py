"""Settings that bound the size of requests, and the check of answers."""

from typing import Literal

from pydantic import BaseModel, Field


class BoundsSettings(BaseModel):
    """Limits of the size of requests, and the check of answers."""

    body_limit_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Maximum size of a JSON request body."
    )
    json_nodes_limit: int = Field(
        400_000,
        ge=1000,
        description="Maximum number of values and field names in a JSON body, which decide how "
        "long its parsing takes.",
    )
    json_text_limit_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        description="Maximum size of a JSON body without the base64 files within it.",
    )
    schema_nodes_limit: int = Field(
        40_000,
        ge=100,
        description="Maximum number of values and field names in the JSON schemas of one request "
        "to a local model.",
    )
    schema_patterns_limit_bytes: int = Field(
        8 * 1024 * 1024,
        ge=64 * 1024,
        description="Maximum size of the regular expressions in the JSON schemas of one request "
        "to a local model, when they are compiled. Repetitions of large classes of characters "
        "are large: `\\p{L}{100}` has 4 MB.",
    )
    json_depth_limit: int = Field(
        100, ge=8, le=500, description="Maximum nesting depth of a JSON body."
    )
    page_limit_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        description="Maximum size of the stored objects in one page of a list. A page ends early, "
        "with `has_more`, before an object beyond it; it has at least one.",
    )
    upload_limit_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1024,
        description="Maximum size of a request body that is not JSON, and of a file in one.",
    )
    part_limit_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Maximum size of one part of an upload."
    )
    parts_limit: int = Field(
        1000, ge=1, le=10_000, description="Maximum number of parts of one upload."
    )
    parted_upload_limit_bytes: int = Field(
        8 * 1024 * 1024 * 1024,
        ge=1024,
        description="Maximum size of a file that is uploaded in parts.",
    )
    batch_lines_limit: int = Field(
        50_000, ge=1, description="Maximum number of lines of one batch."
    )
    batch_file_limit_bytes: int = Field(
        200 * 1024 * 1024, ge=1024, description="Maximum size of the input file of a batch."
    )
    batch_line_limit_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, description="Maximum size of one line of a batch."
    )
    batch_concurrency: int = Field(
        16, ge=1, description="Lines of batches that one process sends to models concurrently."
    )
    detached_chats_limit: int = Field(
        64,
        ge=0,
        description="Chats with the header `x-llm-backend-detached` that are answered at the same "
        "time by one process, half of them at most for one project; they go on when their client "
        "disconnects. They are refused if this is 0.",
    )
    detached_chat_bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        description="Bytes of a detached chat's answer that are kept in memory for clients that "
        "come back while it is written.",
    )
    choices_limit: int = Field(16, ge=1, le=128, description="Maximum of `n` and `best_of`.")
    structured_tries: int = Field(
        3,
        ge=1,
        le=16,
        description="Maximum number of answers generated, one after the other, until one is valid "
        "by a JSON schema that a grammar expresses only in part.",
    )
    prompts_limit: int = Field(
        64,
        ge=1,
        description="Maximum number of prompts of one completion, or of inputs of one moderation.",
    )
    tokenize_limit_bytes: int = Field(
        1024 * 1024,
        ge=1,
        description="Maximum size of a text, or of a rendered chat, that `/v1/tokenize` and token "
        "counts accept. Each byte may be a token.",
    )
    inputs_limit: int = Field(
        2048,
        ge=1,
        description="Maximum number of inputs to embed, or of documents to rerank, in one request.",
    )
    decision_labels_limit: int = Field(
        10_000,
        ge=1,
        description="Maximum number of possible answers to all questions of one decision. They "
        "are tokenized between two passes of the engine; together with the questions they may "
        "have `tokenize_limit_bytes`.",
    )
    media_limit: int = Field(
        16,
        ge=1,
        description="Maximum number of images and audio files in one prompt of a local model.",
    )
    input_files_limit: int = Field(
        64, ge=0, description="Maximum number of files and images in the input of one response."
    )
    fetched_kept_bytes: int = Field(
        16 * 1024 * 1024,
        ge=0,
        description="Maximum size of the fetched files and images that are stored with the "
        "input of one response, so that later turns read the same bytes. Files beyond it are "
        "fetched again in each turn.",
    )
    fetched_file_limit_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Maximum size of a file that is fetched for a response.",
    )
    image_limit_bytes: int = Field(
        20 * 1024 * 1024, ge=1024, description="Maximum size of an image's file."
    )
    image_limit_pixels: int = Field(
        40_000_000,
        ge=1024,
        description="Maximum number of pixels of an image; a larger one is not decoded.",
    )
    audio_limit_bytes: int = Field(
        25 * 1024 * 1024, ge=1024, description="Maximum size of an audio file."
    )
    audio_limit_s: float = Field(600, gt=0, description="Maximum length of audio in seconds.")
    response_validation: Literal["off", "log", "enforce"] = Field(
        "log",
        description="Action on an answer of this server that violates the API document: `off` "
        "checks none, `log` logs it, `enforce` answers 500 instead.",
    )
