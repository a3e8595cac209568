"""TLS context from the settings: key, certificate, and intermediate certificates."""

import ssl
import tempfile
from pathlib import Path

from llm_backend.settings import Settings, SettingsError


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Returns the TLS context; None for plain connections. Raises `SettingsError`."""
    certificate = settings.tls_certificate
    if certificate is None:
        if settings.tls_key is not None or settings.tls_chain is not None:
            raise SettingsError("The setting `tls_certificate` is missing: TLS needs it.")
        return None
    password = settings.tls_password.get_secret_value() if settings.tls_password else ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as chain:
        chain.write(_text(certificate))
        if settings.tls_chain is not None:
            chain.write("\n" + _text(settings.tls_chain))
        chain.flush()
        key = settings.tls_key or certificate
        _text(key)  # raises an error that names the unreadable file
        try:
            context.load_cert_chain(chain.name, str(key), password)  # "": no prompt
        except (ssl.SSLError, OSError) as error:
            raise SettingsError(
                f"The certificate {certificate} and the key {key} cannot be used: they do not "
                f"match, or `tls_password` is wrong ({error.strerror or error})."
            ) from error
    return context


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a PEM file"
        raise SettingsError(f"Cannot read {path}: {reason}.") from error
