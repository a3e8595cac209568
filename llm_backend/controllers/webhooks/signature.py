"""Secrets and signatures of events, as Standard Webhooks 1.0 has them: HMAC-SHA256 over id, time
and body, in base64, with a signature for each secret that holds."""

import base64
import hmac
import secrets
from collections.abc import Sequence

_PREFIX = "whsec_"
_SECRET_BYTES = 30  # 24 to 64 by the standard; base64 without padding
_SHOWN_CHARACTERS = 4


def new_secret() -> str:
    """Returns a new random secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def hint_of(secret: str) -> str:
    """Returns a secret with all but its last characters masked."""
    return f"{_PREFIX}...{secret[-_SHOWN_CHARACTERS:]}"


def signed_headers(
    event_id: str, body: bytes, now: float, secrets: Sequence[str]
) -> dict[str, str]:
    """Returns the headers of an event that is sent now."""
    timestamp = str(int(now))
    content = f"{event_id}.{timestamp}.".encode() + body
    return {
        "Content-Type": "application/json",
        "User-Agent": "llm-backend",
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{_signature(secret, content)}" for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()
