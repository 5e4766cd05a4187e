"""The local certificate authority: made at first run, signs the broker's and every client's certificate."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import ipaddress
import os
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flexmeter.errors import BrokerError
from flexmeter.messaging.identity import Identity

_DAY = datetime.timedelta(days=1)
_VALID_DAYS = 825
_CA_VALID_DAYS = 3650


@dataclass(frozen=True)
class Credential:
    """Files of a certificate, its private key and the authority that signed it (PEM)."""

    certificate: Path
    key: Path
    authority: Path

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context of a client that presents this certificate; share it among connections."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of a server (REST, tests) that presents this certificate."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def _context(self, protocol: int) -> ssl.SSLContext:
        try:
            context = ssl.SSLContext(protocol)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(self.authority)
            context.load_cert_chain(self.certificate, self.key)
        except FileNotFoundError:
            raise BrokerError(f"credential {self.certificate}: file, key or ca.crt is missing") from None
        except ssl.SSLError as error:
            raise BrokerError(f"credential {self.certificate}: {error}") from None
        return context


class Authority:
    """A certificate authority that lives in a folder; use `open_authority`."""

    def __init__(self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.folder = folder
        self._certificate = certificate
        self._key = key

    @property
    def certificate_file(self) -> Path:
        """The file that clients need to trust the platform."""
        return self.folder / "ca.crt"

    def server(self, hosts: Iterable[str] = ("localhost", "127.0.0.1"), name: str = "server") -> Credential:
        """Return the credential of a server under these names; one that still fits is kept.

        Processes that may start at the same time need names of their own.
        """
        names = x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)])
        if self._still_valid(name, names):
            return self._credential(name)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flexmeter-{name}")])
        # Nodes of a cluster are each other's clients; no name of a server is a user of the broker.
        return self._issue(name, subject, names, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])

    def client(self, who: Identity) -> Credential:
        """Return the credential of a client; one that was signed before and is still valid is kept."""
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(who.user)])
        if self._still_valid(who.file_name, names):
            return self._credential(who.file_name)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, who.tenant),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, who.role),
                x509.NameAttribute(NameOID.COMMON_NAME, who.name),
            ]
        )
        return self._issue(who.file_name, subject, names, [ExtendedKeyUsageOID.CLIENT_AUTH])

    def secret(self, purpose: str) -> str:
        """Return a secret that only holders of the authority's key can know, the same on all of them."""
        key = self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return hmac.new(key, purpose.encode(), hashlib.sha256).hexdigest()

    def _still_valid(self, name: str, names: x509.SubjectAlternativeName) -> bool:
        """Tell whether a certificate was signed before, with its key, has these names and is good for another month."""
        credential = self._credential(name)
        if not (credential.certificate.exists() and credential.key.exists()):
            return False
        known = x509.load_pem_x509_certificate(credential.certificate.read_bytes())
        if known.not_valid_after_utc < _now() + 30 * _DAY or known.issuer != self._certificate.subject:
            return False
        try:
            return known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == names
        except x509.ExtensionNotFound:
            return False

    def _credential(self, name: str) -> Credential:
        return Credential(self.folder / f"{name}.crt", self.folder / f"{name}.key", self.certificate_file)

    def _issue(
        self,
        name: str,
        subject: x509.Name,
        names: x509.SubjectAlternativeName,
        usages: Sequence[x509.ObjectIdentifier],
    ) -> Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, self._certificate.subject, key, _VALID_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(names, critical=False)
        )
        credential = self._credential(name)
        credential.certificate.unlink(missing_ok=True)  # a crash between the two writes must not leave a wrong pair
        _write_key(credential.key, key)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write(credential.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return credential


def open_authority(folder: Path) -> Authority:
    """Return the authority in a folder, making both at first use; raise `BrokerError` if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / "ca.crt").exists():
            _found(folder)
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except OSError as error:
        raise BrokerError(f"certificate folder {folder}: {error.strerror or error}") from error
    except ValueError as error:
        raise BrokerError(f"certificate folder {folder}: ca.crt or ca.key cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BrokerError(f"certificate folder {folder}: ca.key is not an elliptic-curve key")
    return Authority(folder, certificate, key)


def _found(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flexmeter-ca-{os.urandom(4).hex()}")])
    certificate = (
        _builder(name, name, key, _CA_VALID_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(folder / "ca.key", key)
    _write(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _DAY)
        .not_valid_after(_now() + days * _DAY)
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(path, pem, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a whole file or nothing, readable by whom `mode` says from the first byte on."""
    partial = path.with_name(path.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    partial.replace(path)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
