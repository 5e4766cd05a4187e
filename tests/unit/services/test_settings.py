"""Settings files: written and read back, and wrong ones named."""

from pathlib import Path

import pytest

from flexmeter.errors import InputError
from flexmeter.services.settings import Api, Broker, ServiceSettings, read_settings, write_toml


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    files = [tmp_path / name for name in ("a.crt", "a.key", "ca.crt")]
    broker = Broker("127.0.0.1", 8883, *files)
    return ServiceSettings("lv", "dso", "lv-1", "grid", broker, Api("https://localhost", tmp_path / "t", files[2]))


def test_round_trip(settings: ServiceSettings, tmp_path: Path) -> None:
    path = tmp_path / "lv.toml"
    write_toml(settings, path)
    assert read_settings(path) == settings


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("port = 8883", 'port = "high"', r"Expected `int`, got `str` - at `\$.broker.port`"),
        ('service = "lv"', 'service = "moon"', "Invalid enum value 'moon'"),
        ("interval_s", "intervall_s", "unknown field `intervall_s`"),
        ("[broker]", "[broker", "lv.toml: "),
    ],
)
def test_a_wrong_value_is_named(settings: ServiceSettings, tmp_path: Path, old: str, new: str, text: str) -> None:
    path = tmp_path / "lv.toml"
    write_toml(settings, path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=text):
        read_settings(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        read_settings(tmp_path / "none.toml")
