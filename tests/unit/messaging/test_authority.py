import stat

import pytest
from cryptography import x509

from flexmeter.errors import BrokerError
from flexmeter.messaging import Identity, open_authority

WHO = Identity("acme", "con-1", "device")


def test_the_authority_is_made_once_and_found_again(tmp_path):
    first = open_authority(tmp_path / "ca").certificate_file.read_bytes()
    assert open_authority(tmp_path / "ca").certificate_file.read_bytes() == first


def test_a_client_certificate_names_tenant_role_and_device(tmp_path):
    credential = open_authority(tmp_path).client(WHO)
    certificate = x509.load_pem_x509_certificate(credential.certificate.read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=con-1,OU=device,O=acme"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:flexmeter:acme:device:con-1"]
    credential.client_context()


def test_a_valid_client_certificate_is_kept(tmp_path):
    authority = open_authority(tmp_path)
    first = authority.client(WHO).certificate.read_bytes()
    assert authority.client(WHO).certificate.read_bytes() == first


def test_keys_are_readable_by_their_owner_only(tmp_path):
    authority = open_authority(tmp_path)
    authority.client(WHO)
    authority.server()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.key")}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3


def test_the_server_certificate_names_localhost_and_its_address(tmp_path):
    credential = open_authority(tmp_path).server(("localhost", "127.0.0.1"))
    certificate = x509.load_pem_x509_certificate(credential.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    credential.server_context()


def test_a_damaged_authority_is_one_clear_error(tmp_path):
    open_authority(tmp_path)
    (tmp_path / "ca.key").write_text("nothing")
    with pytest.raises(BrokerError, match=r"ca\.key cannot be read"):
        open_authority(tmp_path)


def test_a_missing_credential_is_one_clear_error(tmp_path):
    credential = open_authority(tmp_path).client(WHO)
    credential.key.unlink()
    with pytest.raises(BrokerError, match="missing"):
        credential.client_context()


def test_no_permission_to_write_is_one_clear_error(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BrokerError, match="certificate folder"):
        open_authority(file)
