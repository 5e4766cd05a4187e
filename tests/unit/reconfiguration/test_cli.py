from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flexmeter.cli.reconfigure import register
from flexmeter.errors import InputError

from .conftest import CASES


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_json_report(app: typer.Typer, tmp_path: Path) -> None:
    picture = tmp_path / "states.png"
    result = CliRunner().invoke(app, [str(CASES / "baran33.json"), "--json", "--proof", "5", "--picture", str(picture)])
    report = json.loads(result.stdout)
    assert report["open"] == ["7", "9", "14", "32", "37"]
    assert report["then"]["losses_kw"] == pytest.approx(139.551, abs=1e-3)
    assert report["gap_percent"] == pytest.approx(0.0, abs=1e-6)
    assert report["sequence_accepted"]
    assert len(report["sequence"]) == 8
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_table_and_greedy(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, [str(CASES / "baran33.json"), "--method", "greedy"])
    assert result.exit_code == 0
    assert "140.7" in result.stdout


@pytest.mark.parametrize(
    "arguments", [["none.json"], [str(CASES / "baran33.json"), "--objective", "cost"], ["example:nothing"]]
)
def test_wrong_input_is_an_input_error(app: typer.Typer, arguments) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
