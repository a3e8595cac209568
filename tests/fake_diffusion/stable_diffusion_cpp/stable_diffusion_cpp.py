"""The functions that the binding does not wrap."""

from types import SimpleNamespace

_lib = SimpleNamespace(
    sd_ctx_params_init=lambda _params: None, sd_img_gen_params_init=lambda _params: None
)
