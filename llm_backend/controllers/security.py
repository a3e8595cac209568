"""Bearer token -> caller."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_backend.errors import Unauthorized

__all__ = ["ANONYMOUS", "Authenticator", "Caller"]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks; `key_id` is the beginning of the key's hash, None where the server is open."""

    key_id: str | None = None


ANONYMOUS = Caller()


class Authenticator:
    """Knows keys by their hashes only and compares in constant time; open where there are none."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._hashes = [_hash(key) for key in keys]

    async def __call__(self, headers: Mapping[str, str]) -> Caller:
        """The caller of a request with these headers (names in lower case).

        Raises `Unauthorized` for no key or an unknown one.
        """
        if not self._hashes:
            return ANONYMOUS
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized(
                "This server wants an API key: send it as `Authorization: Bearer KEY`."
            )
        given = _hash(token.strip())
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if not any(matches):
            raise Unauthorized("The API key is not known to this server.")
        return Caller(key_id=given.hex()[:12])


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
