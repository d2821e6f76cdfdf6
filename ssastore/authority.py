"""A small certificate authority of one cluster, in a directory of one host.

    ca.pem   whom everybody believes: goes to all hosts and clients
    ca.key   signs; stays where it was made

Certificates are X.509 (RFC 5280), keys of the curve P-256.  Everybody in a cluster proves the name of the
service (``transport/tls.py``); a host's certificate has besides what else it is called: its address for an
etcd, a name for S3.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ssastore.config import write_private
from ssastore.config.claims import DOMAIN
from ssastore.errors import ConfigError

CA_DAYS = 3650
CERTIFICATE_DAYS = 730
"Longer than anybody waits to set a reminder; `doctor` speaks up a month before."

_EARLIER = timedelta(hours=1)
"Certificates begin before now: clocks of hosts differ."
_COMMON_NAME_MAX = 64


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says."""

    names: tuple[str, ...]
    "Names in DNS and addresses, in its order."
    begins: datetime
    ends: datetime
    fingerprint: str
    "SHA-256 of it in DER, hexadecimal."
    is_authority: bool


class Authority:
    """Signs for one cluster."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def make(cls, directory: Path, name: str, now: datetime) -> Authority:
        """A new one for the service of this name; its files are private.

        Raises:
            FileExistsError: the directory has one.
        """
        if (directory / "ca.pem").exists() or (directory / "ca.key").exists():
            raise FileExistsError(f"{directory} has an authority")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(f"ssastore {name}")
        builder = (
            _builder(subject, subject, key.public_key(), now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(is_authority=True), critical=True)
        )
        made = cls(builder.sign(key, hashes.SHA256()), key)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(directory / "ca.key", key_text(key))
        write_private(directory / "ca.pem", made.text)
        return made

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """The one of a directory. Raises ConfigError."""
        path = directory / "ca.key"
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}: no authority is here") from None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{directory}: not the files of an authority: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError(f"{path}: not the key of ca.pem")
        return cls(certificate, key)

    @property
    def text(self) -> str:
        """Its certificate in PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(
        self, public: ec.EllipticCurvePublicKey, names: list[str], now: datetime, days: int = CERTIFICATE_DAYS
    ) -> str:
        """A certificate for names and addresses, the first one before all others, in PEM.

        Raises:
            ConfigError: no such name or address can be certified.
        """
        if not names or not 1 <= days <= CA_DAYS:
            raise ConfigError(f"a certificate has names, and ends in 1 to {CA_DAYS} days")
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(_subject(names[0]), self._certificate.subject, public, now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
            .add_extension(own, critical=False)
        )
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for a certificate."""
    return ec.generate_private_key(ec.SECP256R1())


def key_text(key: ec.EllipticCurvePrivateKey) -> str:
    """A key in PEM (PKCS #8), not encrypted: services start without anybody at a keyboard."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def public_text(key: ec.EllipticCurvePrivateKey) -> str:
    """Its public half in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def public_key(text: str) -> ec.EllipticCurvePublicKey:
    """The public key of a text in PEM. Raises ConfigError."""
    try:
        found = serialization.load_pem_public_key(text.encode())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"no public key in PEM: {error}") from None
    if not isinstance(found, ec.EllipticCurvePublicKey):
        raise ConfigError("a public key of another kind than P-256")
    return found


def read_certificates(text: bytes, path: str) -> list[Certificate]:
    """What the certificates of a file in PEM say. Raises ConfigError: there is none."""
    try:
        found = x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise ConfigError(f"{path}: no certificate in PEM: {error}") from None
    return [_read(certificate) for certificate in found]


def read_issuer(text: bytes, authorities: bytes, path: str) -> Certificate | None:
    """Whose key signed the first certificate of ``text``, of the authorities in the file at ``path``.

    None: none of them, as where others stand between them. Raises ConfigError as ``read_certificates``.
    """
    own = x509.load_pem_x509_certificate(text)
    try:
        known = x509.load_pem_x509_certificates(authorities)
    except ValueError as error:
        raise ConfigError(f"{path}: no certificate in PEM: {error}") from None
    for found in known:
        # Names do not tell: an authority and its successor have the same one.
        with suppress(ValueError, TypeError, InvalidSignature):
            own.verify_directly_issued_by(found)
            return _read(found)
    return None


def _read(found: x509.Certificate) -> Certificate:
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(str(name.value) for name in extension)
    except x509.ExtensionNotFound:
        names = ()
    try:
        is_authority = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    fingerprint = found.fingerprint(hashes.SHA256()).hex()
    return Certificate(
        names, found.not_valid_before_utc, found.not_valid_after_utc, fingerprint, is_authority
    )


def now_utc() -> datetime:
    """For the times of certificates."""
    return datetime.now(UTC)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_COMMON_NAME_MAX])])


def _general_name(text: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        if DOMAIN.fullmatch(text.removeprefix("*.")) is None:
            raise ConfigError(f"{text!r} is neither a name in DNS nor an address") from None
        return x509.DNSName(text)
    return x509.IPAddress(address)
