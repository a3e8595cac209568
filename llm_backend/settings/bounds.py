"""How large a request may be, and whether answers are checked."""

from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["BoundsSettings"]


class BoundsSettings(BaseModel):
    """How large a request may be, and whether answers are checked."""

    body_limit_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Size of a JSON request body at most."
    )
    json_nodes_limit: int = Field(
        400_000,
        ge=1000,
        description="Values and names of fields in a JSON body at most, which decide how long it "
        "takes to read.",
    )
    json_text_limit_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        description="Size of a JSON body at most without the files in base64 within it.",
    )
    schema_nodes_limit: int = Field(
        40_000,
        ge=100,
        description="Values and names of fields in a JSON schema for answers of local models at "
        "most.",
    )
    json_depth_limit: int = Field(100, ge=8, le=500, description="Nesting of a JSON body at most.")
    upload_limit_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1024,
        description="Size of any other request body, and of a file in one, at most.",
    )
    part_limit_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Size of one part of an upload at most."
    )
    parts_limit: int = Field(1000, ge=1, le=10_000, description="Parts of an upload at most.")
    parted_upload_limit_bytes: int = Field(
        8 * 1024 * 1024 * 1024,
        ge=1024,
        description="Size of a file that comes in parts, and of all its parts, at most.",
    )
    batch_lines_limit: int = Field(50_000, ge=1, description="Lines of a batch at most.")
    batch_file_limit_bytes: int = Field(
        200 * 1024 * 1024, ge=1024, description="Size of a file for a batch at most."
    )
    batch_line_limit_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, description="Size of a line of a batch at most."
    )
    batch_concurrency: int = Field(
        16, ge=1, description="Lines of batches that a process has answered at the same time."
    )
    choices_limit: int = Field(16, ge=1, le=128, description="`n` and `best_of` at most.")
    structured_tries: int = Field(
        3,
        ge=1,
        le=16,
        description="Answers asked for, one after the other, until one is by a JSON schema of "
        "which a grammar says only a part.",
    )
    prompts_limit: int = Field(
        64, ge=1, description="Prompts of one completion, or inputs of one moderation, at most."
    )
    tokenize_limit_characters: int = Field(
        4_000_000,
        ge=1,
        description="Characters of a text, or of a rendered chat, whose tokens are told or counted "
        "at most.",
    )
    inputs_limit: int = Field(
        2048, ge=1, description="Inputs to embed, or documents to rank, of one request at most."
    )
    media_limit: int = Field(
        16, ge=1, description="Pictures and sounds of one prompt of a local model at most."
    )
    input_files_limit: int = Field(
        64, ge=0, description="Files and pictures in the input of one response at most."
    )
    fetched_kept_bytes: int = Field(
        16 * 1024 * 1024,
        ge=0,
        description="Size of the fetched files and pictures that are kept with one response's "
        "input, so that later turns read the same; what is beyond is fetched each turn.",
    )
    fetched_file_limit_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Size of a file that is fetched for a response at most.",
    )
    image_limit_bytes: int = Field(
        20 * 1024 * 1024, ge=1024, description="Size of a picture's file at most."
    )
    image_limit_pixels: int = Field(
        40_000_000, ge=1024, description="Pixels of a picture at most; more are not decoded."
    )
    audio_limit_bytes: int = Field(
        25 * 1024 * 1024, ge=1024, description="Size of a sound's file at most."
    )
    audio_limit_s: float = Field(600, gt=0, description="Seconds of a sound at most.")
    response_validation: Literal["off", "log", "enforce"] = Field(
        "log", description="What happens to an answer of ours that breaks the document."
    )
