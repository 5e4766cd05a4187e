"""Serving over HTTPS in the loop of the caller."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI

from flexmeter.api import serve
from flexmeter.errors import ServiceError


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return files of a certificate for 127.0.0.1 that vouches for itself, and of its key."""
    folder = tmp_path_factory.mktemp("identity")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()

    @made.get("/hello")
    async def hello() -> str:
        return "hello"

    return made


def test_https_in_the_same_loop(app: FastAPI, identity: tuple[Path, Path]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        certificate, key = identity
        trust = ssl.create_default_context(cafile=str(certificate))
        async with serve(app, certificate=certificate, key=key) as served:
            assert served.url == f"https://127.0.0.1:{served.port}"
            assert asyncio.get_running_loop() is loop
            async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
                answers = await asyncio.gather(*(client.get(f"{served.url}/hello") for _ in range(5)))
            assert [answer.json() for answer in answers] == ["hello"] * 5
            async with httpx.AsyncClient(trust_env=False) as stranger:
                with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
                    await stranger.get(f"{served.url}/hello")
        with pytest.raises(OSError, match=str(served.port)):
            await asyncio.open_connection("127.0.0.1", served.port)

    asyncio.run(run())


def test_a_port_in_use_is_named(app: FastAPI) -> None:
    async def run() -> None:
        async with serve(app) as served:
            with pytest.raises(ServiceError, match=f"{served.host}:{served.port}"):
                async with serve(app, port=served.port):
                    pass

    asyncio.run(run())


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_bad_certificate_is_named(app: FastAPI, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "cert.pem"
    if content is not None:
        file.write_text(content)

    async def run() -> None:
        async with serve(app, certificate=file, key=file):
            pass

    with pytest.raises(ServiceError, match=r"cert\.pem"):
        asyncio.run(run())


def test_an_error_within_the_block_ends_the_server(app: FastAPI) -> None:
    async def run() -> None:
        async with serve(app) as served:
            ports.append(served.port)
            raise KeyError("mine")

    ports: list[int] = []
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(run())
    with pytest.raises(OSError, match=str(ports[0])):
        asyncio.run(asyncio.open_connection("127.0.0.1", ports[0]))
