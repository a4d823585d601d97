"""Each mode of `ssl:` against real TLS servers: whom it trusts, and whom it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
import trustme

from jobu_db.errors import ConfigurationError
from jobu_db.settings.server import ServerSettings
from jobu_db.settings.tls import TLSSettings
from jobu_db.settings.types import Port

Certificate = Literal["right", "wrong host", "stranger"]


class DogSettings(ServerSettings):
    url_schemes = ("dog",)

    port: Port = 7777


def tls(ssl: object) -> TLSSettings:
    return DogSettings.parse("main", {"type": "dog", "ssl": ssl}).ssl


def problems(ssl: object, **values: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        DogSettings.parse("main", {"type": "dog", "ssl": ssl, **values})
    return [line.removeprefix("databases.main.") for line in caught.value.problems]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@contextlib.asynccontextmanager
async def server(
    authority: trustme.CA, certificate: Certificate, client_ca: trustme.CA | None = None
) -> AsyncIterator[int]:
    """A TLS server that says "hello" after the handshake; yields its port."""
    issuer = trustme.CA() if certificate == "stranger" else authority
    name = "elsewhere.example" if certificate == "wrong host" else "localhost"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(name).configure_cert(context)
    if client_ca:
        client_ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    listening = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def greeting(settings: TLSSettings, port: int) -> bytes:
    reader, writer = await asyncio.open_connection("localhost", port, ssl=settings.context())
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("mode", "certificate", "trusted"),
    [
        ("require", "right", True),
        ("require", "wrong host", True),
        ("require", "stranger", True),
        ("verify-ca", "right", True),
        ("verify-ca", "wrong host", True),
        ("verify-ca", "stranger", False),
        ("verify-full", "right", True),
        ("verify-full", "wrong host", False),
        ("verify-full", "stranger", False),
    ],
)
async def test_a_mode_trusts_exactly_whom_it_says(
    authority: trustme.CA, ca_file: str, mode: str, certificate: Certificate, trusted: bool
) -> None:
    settings = tls({"mode": mode} if mode == "require" else {"mode": mode, "ca": ca_file})
    async with server(authority, certificate) as port:
        if trusted:
            assert await greeting(settings, port) == b"hello"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await greeting(settings, port)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_without_ca_the_system_decides_and_knows_no_private_authority(
    authority: trustme.CA, mode: str
) -> None:
    async with server(authority, "right") as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeting(tls(mode), port)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_without_ca_whom_the_system_trusts_is_trusted(
    authority: trustme.CA, ca_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)  # OpenSSL's name for the system's authorities
    cert = tmp_path / "cert.pem"
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(str(cert))
    async with server(authority, "right") as port:
        assert await greeting(tls({"mode": mode, "cert": str(cert)}), port) == b"hello"


@pytest.mark.parametrize("separate", [True, False])
async def test_a_client_certificate_opens_a_server_that_wants_one(
    authority: trustme.CA, ca_file: str, tmp_path: Path, separate: bool
) -> None:
    issued = authority.issue_cert("client.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if separate:
        issued.cert_chain_pems[0].write_to_path(str(cert))
        issued.private_key_pem.write_to_path(str(key))
    else:
        issued.private_key_and_cert_chain_pem.write_to_path(str(cert))
    given = {"mode": "verify-full", "ca": ca_file, "cert": str(cert)}
    settings = tls({**given, "key": str(key)} if separate else given)
    async with server(authority, "right", client_ca=authority) as port:
        assert await greeting(settings, port) == b"hello"
        # TLS 1.3 refuses after the client's handshake: an alert, or just the end.
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert await greeting(tls({"mode": "verify-full", "ca": ca_file}), port) == b""


async def test_a_replaced_file_is_read_at_the_next_connection(
    authority: trustme.CA, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    settings = tls({"mode": "verify-full", "ca": str(path)})
    async with server(authority, "right") as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeting(settings, port)
        authority.cert_pem.write_to_path(str(path))
        assert await greeting(settings, port) == b"hello"
    assert settings.context() is settings.context()


def test_off_is_the_default_and_what_yaml_makes_of_it() -> None:
    assert DogSettings(type="dog").ssl.mode == "off"
    for off in ("off", False, {"mode": "off"}, {"mode": False}):
        assert tls(off).mode == "off"
        assert tls(off).context() is None


def test_a_mapping_without_mode_verifies_in_full() -> None:
    assert tls({"ca": "ca.pem"}).mode == "verify-full"


@pytest.mark.parametrize("value", [True, "prefer", "OFF", "verify_full", "hunter"])
def test_another_mode_is_told_with_those_allowed(value: object) -> None:
    (line,) = problems(value)
    assert line.startswith("ssl: must be off, require, verify-ca or verify-full, not ")
    (line,) = problems({"mode": value})
    assert line.startswith("ssl.mode: must be off, require, verify-ca or verify-full, not ")


def test_what_is_neither_a_mode_nor_a_mapping_is_told() -> None:
    told = "ssl: must be off, require, verify-ca, verify-full or a mapping, not "
    assert problems(5) == [f"{told}5"]
    assert problems(None) == [f"{told}null"]
    assert problems(["require"]) == [f"{told}a list"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mode": "off", "ca": "f"}, "ssl.ca: has no use when the mode is off"),
        ({"mode": "off", "cert": "f"}, "ssl.cert: has no use when the mode is off"),
        ({"mode": "require", "ca": "f"}, "ssl.ca: is used by verify-ca and verify-full only"),
        ({"key": "f"}, "ssl.key: is of no use without cert"),
        ({"ca": 5}, "ssl.ca: must be a path or null, not 5"),
        ({"crl": "f"}, "ssl.crl: unknown key; "),
    ],
)
def test_a_certificate_without_use_is_a_contradiction(given: dict[str, Any], told: str) -> None:
    (line,) = problems(given)
    assert line.startswith(told)


def test_a_unix_socket_is_never_encrypted() -> None:
    told = ["ssl: must be off on a Unix socket, which is never encrypted"]
    assert problems("require", host="/run/dog") == told
    assert problems("require", hosts=["a", "/run/dog"]) == told


@pytest.mark.parametrize("key", ["ca", "cert"])
@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_is_no_certificate_is_named(
    tmp_path: Path, key: str, content: bytes | None
) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"ssl\.{key}: {path} cannot be used: "):
        tls({key: str(path)}).context()


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(
    authority: trustme.CA, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization as s

    issued = authority.issue_cert("client.example")
    plain = s.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encryption = s.BestAvailableEncryption(b"hunter2")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    key.write_bytes(plain.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encryption))
    with pytest.raises(ConfigurationError, match="the key is encrypted"):
        tls({"cert": str(cert), "key": str(key)}).context()


@pytest.mark.parametrize("key", ["ca", "cert", "key"])
def test_a_certificate_that_is_no_regular_file_is_told(
    ca_file: str, tmp_path: Path, key: str
) -> None:
    """OpenSSL would wait for a writer to the FIFO for ever."""
    os.mkfifo(tmp_path / "fifo")
    given = {"mode": "verify-full", "cert": ca_file} if key == "key" else {"mode": "verify-full"}
    with pytest.raises(ConfigurationError, match=rf"ssl\.{key}: .* is a pipe, socket or device"):
        tls({**given, key: str(tmp_path / "fifo")}).context()
