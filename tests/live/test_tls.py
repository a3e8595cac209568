"""TLS by the server itself: certificate, key, chain, passphrase."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llm_backend.server.tls import server_context
from llm_backend.settings import SettingsError, load_settings
from tests.serving import serve


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, folder: Path, name: str, password: str | None = None) -> tuple[Path, Path]:
        """As two PEM files, the key encrypted if there is a password."""
        lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            lock = serialization.BestAvailableEncryption(password.encode())
        pem, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        paths[0].write_bytes(self.certificate.public_bytes(pem))
        paths[1].write_bytes(self.key.private_bytes(pem, kind, lock))
        return paths


def signed(name: str, by: Signed | None = None, *, is_authority: bool = False) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    own_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
        (by.key if by else key).public_key()
    )
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(own_identifier, critical=False)
        .add_extension(issuer_identifier, critical=False)
        .add_extension(usage, critical=True)  # Python 3.13 asks for these three
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(by.key if by else key, hashes.SHA256())
    )
    return Signed(certificate=certificate, key=key)


def test_clients_that_trust_the_authority_are_answered_over_tls(tmp_path):
    root = signed("root", is_authority=True)
    between = signed("between", root, is_authority=True)
    certificate, key = signed("server", between).write(tmp_path, "server", password="open sesame")
    known, _ = root.write(tmp_path, "root")
    chain, _ = between.write(tmp_path, "between")
    flags = ["--tls-certificate", str(certificate), "--tls-key", str(key),
             "--tls-chain", str(chain), "--model", "none"]  # fmt: skip
    environment = {"LLM_BACKEND_TLS_PASSWORD": "open sesame"}
    with serve(tmp_path / "data", *flags, environment=environment, ready=False) as served:
        assert served.address.startswith("https://")
        address = served.address.replace("127.0.0.1", "localhost")
        trusting = ssl.create_default_context(cafile=str(known))
        answer = httpx.get(f"{address}/healthz", verify=trusting)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/healthz")

    assert answer.json() == {"status": "ok"}


def test_an_unusable_certificate_or_key_is_one_sentence(tmp_path):
    certificate, key = signed("server").write(tmp_path, "server", password="right")
    _, other = signed("other").write(tmp_path, "other")
    mine = {"data_dir": tmp_path, "tls_certificate": certificate}
    for flags, sentence in (
        ({**mine, "tls_key": key}, "`tls_password` is wrong"),
        ({**mine, "tls_key": key, "tls_password": "left"}, "`tls_password` is wrong"),
        ({**mine, "tls_key": other}, "they do not match"),
        ({**mine, "tls_key": tmp_path / "none"}, "Cannot read .*none: No such file"),
        ({"tls_key": key}, "`tls_certificate` is missing"),
    ):
        with pytest.raises(SettingsError, match=sentence) as caught:
            server_context(load_settings(flags))
        assert "\n" not in str(caught.value)
    assert server_context(load_settings({**mine, "tls_key": key, "tls_password": "right"}))
    assert server_context(load_settings()) is None
