"""A copy of a platform that is not running, and the way back."""

import asyncio
import shutil

import pytest

from flexmeter.app.backup import MANIFEST, back_up, restore
from flexmeter.app.setup import set_up
from flexmeter.config import read_config
from flexmeter.errors import InputError


@pytest.fixture
def copy(tmp_path):
    file = set_up(tmp_path / "house", "main", "meter-1")["configuration"]
    asyncio.run(back_up(read_config(file), file, tmp_path / "copy"))
    return tmp_path / "copy"


def test_a_restored_platform_has_everything_and_keys_stay_private(copy, tmp_path):
    assert restore(copy, tmp_path / "again") == {"main": 0}
    for name in ("flexmeter.toml", "data/registry.sqlite", "data/main.token", "data/certificates/ca.crt"):
        assert (tmp_path / "again" / name).read_bytes() == (copy / name).read_bytes()
    assert (tmp_path / "again" / "data/certificates/ca.key").stat().st_mode & 0o077 == 0


def test_a_platform_is_never_overwritten(copy, tmp_path):
    before = (tmp_path / "house" / "flexmeter.toml").read_bytes()
    with pytest.raises(InputError, match="house: expected an empty folder"):
        restore(copy, tmp_path / "house")
    assert (tmp_path / "house" / "flexmeter.toml").read_bytes() == before


def test_damaged_and_missing_files_are_named_before_anything_is_written(copy, tmp_path):
    with (copy / "data/registry.sqlite").open("r+b") as file:
        file.seek(100)
        file.write(b"x")
    (copy / "data/main.token").unlink()
    with pytest.raises(InputError, match=r"data/main.token, data/registry.sqlite"):
        restore(copy, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("content", [None, b"{}", b'{"version":1,"files":{"flexmeter.toml":"","../x":""}}'])
def test_a_folder_that_is_no_copy_is_refused(copy, tmp_path, content):
    (copy / MANIFEST).unlink()
    if content is not None:
        (copy / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match=MANIFEST):
        restore(copy, tmp_path / "again")


def test_a_data_folder_elsewhere_is_copied_not_written_to(tmp_path):
    """An absolute data folder made the copy land in the live data."""
    file = set_up(tmp_path / "house", "main", "meter-1")["configuration"]
    shutil.move(tmp_path / "house" / "data", tmp_path / "elsewhere")
    file.write_text(file.read_text().replace('folder = "data"', f'folder = "{tmp_path / "elsewhere"}"'))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere" / "certificates").iterdir()}
    asyncio.run(back_up(read_config(file), file, tmp_path / "copy"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere" / "certificates").iterdir()} == before
    restore(tmp_path / "copy", tmp_path / "again")
    assert read_config(tmp_path / "again" / "flexmeter.toml").data_folder == tmp_path / "again" / "data"
