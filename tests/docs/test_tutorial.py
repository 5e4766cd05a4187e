"""The tutorial runs as it stands: Python blocks, commands, and the output lines it quotes."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexmeter.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    names: dict[str, object] = {}
    output = ""
    blocks = BLOCK.findall(PAGE.read_text())
    assert {kind for kind, _ in blocks} == {"python", "bash", "text"}
    for kind, content in blocks:
        if kind == "python":
            exec(compile(content, str(PAGE), "exec"), names)
        elif kind == "bash":
            output = ""
            for line in content.splitlines():
                command, *arguments = shlex.split(line)
                assert command == "flexmeter"
                result = CliRunner().invoke(app, arguments, catch_exceptions=False)
                assert result.exit_code == 0, result.output
                output += result.output
        else:
            for line in content.splitlines():
                assert squeezed(line) in squeezed(output)
    for picture in ("map.png", "profile.png", "estimate.png", "feeder.png"):
        assert (tmp_path / picture).stat().st_size > 5000
