import pytest

from flexmeter.config import TEMPLATE, Config, read_config, write_config
from flexmeter.errors import ConfigError, InputError


def read(tmp_path, text):
    path = tmp_path / "flexmeter.toml"
    path.write_text(text)
    return read_config(path)


def test_what_init_writes_is_what_the_code_defaults_to(tmp_path):
    path = tmp_path / "flexmeter.toml"
    write_config(path, "acme")
    config = read_config(path)
    assert config == Config(tenants=("acme",), folder=tmp_path.resolve())
    assert config.data_folder == tmp_path.resolve() / "data"


def test_every_key_is_in_the_documented_file():
    config = Config(tenants=("x",))
    for section in ("data", "broker", "api", "ingest", "quota"):
        for field in type(getattr(config, section)).__struct_fields__:
            assert f"\n{field} = " in TEMPLATE, (section, field)


def test_init_never_overwrites(tmp_path):
    path = tmp_path / "flexmeter.toml"
    write_config(path, "acme")
    with pytest.raises(InputError, match="is there already"):
        write_config(path, "other")


def test_all_unknown_keys_are_named_with_the_nearest_known_one(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, 'tenants = ["a"]\ntenant = 1\n[broker]\nprot = 1\n[ingest]\nwindow = 1\n')
    text = str(caught.value)
    assert len(caught.value.findings) == 3
    assert "flexmeter.toml" in text
    assert "broker.prot : unknown; did you mean broker.port?" in text
    assert "did you mean ingest.window_ms?" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "tenants"),
        ("tenants = []", "tenants"),
        ('tenants = ["a b"]', "tenants"),
        ('tenants = ["a"]\n[broker]\nport = 70000', "broker.port"),
        ('tenants = ["a"]\n[broker]\nport = "8883"', "broker.port"),
        ('tenants = ["a"]\n[ingest]\nmode = "fast"', "ingest.mode"),
        ('tenants = ["a"]\n[ingest]\nsources = 2', "ingest.sources"),
        ('tenants = ["a"]\n[quota]\ntenant_disk_gb = 0', "quota.tenant_disk_gb"),
        ('tenants = ["a"]\n[cluster]\nport = 1', "node"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        read(tmp_path, text)


def test_a_file_that_is_not_there_or_not_toml_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="flexmeter init"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(InputError, match="not a TOML file"):
        read(tmp_path, "tenants = [")
