"""Opaque content of items (`encrypted_content`) that clients store and send back. Pure.

The content is encoded and not encrypted: clients see the same content in the clear, too. The opaque
form is for clients that send back nothing else.
"""

import base64
import binascii

_TEXT = "llmb1"  # tag of the format, distinct from later formats and other servers' content


def encode_opaque(text: str, form: str = _TEXT) -> str:
    """Encodes text in opaque form."""
    return f"{form}." + base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode()


def decode_opaque(content: str, form: str = _TEXT) -> str | None:
    """Decodes opaque text; None for another form or another server's content."""
    mark = f"{form}."
    if not content.startswith(mark):
        return None
    try:
        raw = base64.b64decode(content[len(mark) :], altchars=b"-_", validate=True)
        return raw.decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError):
        return None
