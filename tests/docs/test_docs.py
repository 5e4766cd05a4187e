"""The documents tell the truth: links lead somewhere, named modules, tests and commands exist."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/README.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")
CODE = re.compile(r"`((?:src|tests|docs|benchmarks)/[\w/.-]+|flexmeter(?:\.\w+)+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = [match[1] for match in LINK.finditer(page.read_text())]
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_into_pages_lead_to_headings(page: Path) -> None:
    for match in LINK.finditer(page.read_text()):
        if match[2] and match[1].endswith(".md"):
            headings = re.findall(r"^#+ (.*)$", (page.parent / match[1]).read_text(), re.MULTILINE)
            assert match[2][1:] in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


def test_every_picture_is_on_a_page() -> None:
    """One that is not was lost with the text around it."""
    pages = "".join(page.read_text() for page in PAGES)
    assert not [path.name for path in ROOT.glob("docs/**/*.png") if path.name not in pages]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_and_modules_exist(page: Path) -> None:
    missing = [name for name in CODE.findall(page.read_text()) if not _exists(name)]
    assert not missing


def _exists(name: str) -> bool:
    if "/" in name:
        return (ROOT / name).exists()
    path = ROOT / "src" / Path(*name.split("."))
    parent = path.parent
    return path.is_dir() or path.with_suffix(".py").exists() or parent.is_dir() or parent.with_suffix(".py").exists()


def test_every_package_is_in_the_architecture_page() -> None:
    packages = {path.parent.name for path in ROOT.glob("src/flexmeter/*/__init__.py")}
    page = (ROOT / "docs/architecture.md").read_text()
    assert not {name for name in packages if f"`{name}`" not in page and name not in page}


def test_readme_commands_are_those_of_the_front_door() -> None:
    commands = set(re.findall(r"\./dev (\w+)", (ROOT / "README.md").read_text()))
    door = (ROOT / "dev").read_text()
    assert commands
    assert all(re.search(rf"^  {command}\)", door, re.MULTILINE) for command in commands)


def test_no_machine_paths_or_registry_addresses_are_tracked() -> None:
    pattern = r"(/wor[k]/|/tm[p]/|/roo[t]/|python[h]osted|py[p]i[.]org|registry[.]np[m]js|deb[.]debia[n])"
    found = subprocess.run(
        ["git", "grep", "-nIE", pattern], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    assert not found
