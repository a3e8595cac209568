"""Content that clients carry and only this server reads: `encrypted_content` of items. Pure.

It is encoded and not encrypted: what stands in it, the client is shown in the clear, too. It is for
clients that send back the opaque form alone.
"""

import base64
import binascii

__all__ = ["decode_opaque", "encode_opaque"]

_TEXT = "llmb1"  # what it is, so that it can be told from later forms and other contents


def encode_opaque(text: str, form: str = _TEXT) -> str:
    """The text in opaque form."""
    return f"{form}." + base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode()


def decode_opaque(content: str, form: str = _TEXT) -> str | None:
    """The text of this opaque form; None for one that is another, or not this server's."""
    mark = f"{form}."
    if not content.startswith(mark):
        return None
    try:
        raw = base64.b64decode(content[len(mark) :], altchars=b"-_", validate=True)
        return raw.decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError):
        return None
