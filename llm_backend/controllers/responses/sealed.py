"""Content that clients carry and only this server reads: `encrypted_content` of items. Pure.

It is encoded and not encrypted: what stands in it, the client is shown in the clear, too. It is for
clients that send back the opaque form alone.
"""

import base64
import binascii

__all__ = ["opened", "sealed"]

_MARK = "llmb1."  # the form, so that later ones can be told from it


def sealed(text: str) -> str:
    """The text in opaque form."""
    return _MARK + base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode()


def opened(content: str) -> str | None:
    """The text of an opaque form; None for one that is not this server's."""
    if not content.startswith(_MARK):
        return None
    try:
        raw = base64.b64decode(content[len(_MARK) :], altchars=b"-_", validate=True)
        return raw.decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError):
        return None
