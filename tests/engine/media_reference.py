"""Reference answers about an image, with the prompt tokenized by the native library itself."""

import ctypes
from pathlib import Path

import llama_cpp as native
import llama_cpp.mtmd_cpp as mtmd
import numpy as np

from llm_backend.engine.messages import MediaItem

MARK = mtmd.mtmd_default_marker()


def reference_answer(model: Path, projector: Path, text: str, media: MediaItem, tokens: int) -> str:
    """Greedy answer of `tokens` tokens to a text with an image in it, in float32."""
    loaded = native.llama_model_load_from_file(
        str(model).encode(), native.llama_model_default_params()
    )
    context = _context(loaded)
    eyes = _eyes(projector, loaded)
    position = _read(eyes, context, text, media)
    vocabulary = native.llama_model_get_vocab(loaded)
    answer = b""
    for _ in range(tokens):
        size = native.llama_vocab_n_tokens(vocabulary)
        logits = np.ctypeslib.as_array(native.llama_get_logits_ith(context, -1), shape=(size,))
        token = int(logits.argmax())
        answer += _piece(vocabulary, token)
        _say(context, token, position)
        position += 1
    mtmd.mtmd_free(eyes)
    native.llama_free(context)
    native.llama_model_free(loaded)
    return answer.decode(errors="replace")


def _context(loaded):
    params = native.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 512, 1, 1
    params.type_k = params.type_v = native.GGML_TYPE_F32
    params.flash_attn_type = native.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return native.llama_init_from_model(loaded, params)


def _eyes(projector: Path, loaded):
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.n_threads, params.print_timings = False, 1, False
    return mtmd.mtmd_init_from_file(str(projector).encode(), loaded, params)


def _read(eyes, context, text: str, media: MediaItem) -> int:
    """Computes the prompt; returns the position after it."""
    whole = text[: media.at].encode() + MARK + text[media.at :].encode()
    asked = mtmd.mtmd_input_text(text=whole, text_len=len(whole), parse_special=True)
    data = ctypes.cast(ctypes.c_char_p(media.data), ctypes.POINTER(ctypes.c_uint8))
    bitmaps = (ctypes.c_void_p * 1)(mtmd.mtmd_bitmap_init(media.width, media.height, data))
    chunks, end = mtmd.mtmd_input_chunks_init(), native.llama_pos(0)
    assert mtmd.mtmd_tokenize(eyes, chunks, ctypes.byref(asked), bitmaps, 1) == 0
    assert (
        mtmd.mtmd_helper_eval_chunks(eyes, context, chunks, 0, 0, 512, True, ctypes.byref(end)) == 0
    )
    mtmd.mtmd_bitmap_free(bitmaps[0])
    mtmd.mtmd_input_chunks_free(chunks)
    return end.value


def _say(context, token: int, position: int) -> None:
    batch = native.llama_batch_init(1, 0, 1)
    batch.n_tokens, batch.token[0], batch.pos[0] = 1, token, position
    batch.n_seq_id[0], batch.seq_id[0][0], batch.logits[0] = 1, 0, 1
    assert native.llama_decode(context, batch) == 0
    native.llama_batch_free(batch)


def _piece(vocabulary, token: int) -> bytes:
    buffer = ctypes.create_string_buffer(64)
    count = native.llama_token_to_piece(vocabulary, token, buffer, 64, 0, False)
    return buffer.raw[:count]
