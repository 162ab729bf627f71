"""TLS to NATS, by the URL: what is asked for is had, or refused before the password is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.twin.test_login import login, nats_with, url_of
from twinlog import ConfigurationError
from twinlog.dev import EmbeddedNats
from twinlog.jetstream import connection as jetstream


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """One that nobody but itself has signed, with its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, open_to_all = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, form, open_to_all))
    (tmp_path / "certificate.pem").write_bytes(made.public_bytes(pem))
    return tmp_path / "certificate.pem"


def with_tls(certificate: Path) -> str:
    key = certificate.with_name("key.pem")
    return f'{login("sEcRet")}\ntls {{ cert_file: "{certificate}", key_file: "{key}" }}'


def by_tls(server: EmbeddedNats) -> str:
    return url_of(server, "sEcRet").replace("nats://", "tls://")


async def refusal(url: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        await jetstream.connect(url, "tests")
    assert "sEcRet" not in str(refused.value)
    return str(refused.value)


async def test_a_server_without_tls_is_refused_where_the_url_asks_for_it() -> None:
    async with nats_with(login("sEcRet")) as server:
        assert await refusal(by_tls(server)) == (
            "NATS_URL: the URL asks for TLS, which this nats-server is without (this server has no TLS: "
            f"127.0.0.1:{server.port}); switch it on there, or write nats:// where nobody can listen in"
        )


async def test_a_certificate_that_is_not_trusted_is_told_in_its_own_words(certificate: Path) -> None:
    async with nats_with(with_tls(certificate)) as server:
        for url in (by_tls(server), url_of(server, "sEcRet")):
            said = await refusal(url)
            assert said.startswith("NATS_URL: the server's certificate is not trusted (")
            assert "self" in said and f"127.0.0.1:{server.port}" in said


@pytest.mark.parametrize("extra", ["", "\nallow_non_tls: true"], ids=["required", "offered"])
async def test_what_is_asked_for_is_had(
    certificate: Path, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with nats_with(with_tls(certificate) + extra) as server:
        client = await jetstream.connect(by_tls(server), "tests")
        writer = client._transport._io_writer  # type: ignore[union-attr]
        assert writer.get_extra_info("ssl_object") is not None
        await jetstream.close(client)
