"""What the documentation says is so: links resolve, commands and paths exist, its Python runs."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import nfbmr
from nfbmr.cli.config import describe_markdown
from nfbmr.cli.main import cli
from nfbmr.config import Config
from nfbmr.data.synthesize import synthesize
from nfbmr.fields import keys, sections
from nfbmr.layers import set_layer
from nfbmr.methods.detector import blueprint
from nfbmr.methods.named import NAMED
from nfbmr.methods.table import METHODS
from nfbmr.resolve import resolve

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> Iterator[str]:
    """The fenced blocks of a language."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if match[1] == language:
            yield match[2]


def command_lines() -> list[str]:
    shown = "\n".join(
        block for page in PAGES for block in blocks(page.read_text(encoding="utf-8"), "console")
    )
    lines = (line.split("  #")[0].strip().removesuffix(" &") for line in shown.splitlines())
    return [line for line in lines if line.startswith(("nfbmr ", "make "))]


def anchor(heading: str) -> str:
    """A heading's anchor, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, fragment = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), f"{page.name} links to {target}"
        if fragment:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{page.name} links to {target}"


@pytest.mark.parametrize("line", command_lines())
def test_commands_exist_and_take_these_options(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE)
        return
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        if command.invoke_without_command and (not words or words[0].startswith("-")):
            break
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
        context = click.Context(command, parent=context)
    # the words are parsed, but nothing is run: a command's own options, and the number of its arguments
    parsed = command.make_context(str(command.name), [*words], parent=context.parent)
    resolve([set_layer(parsed.params.get("assignments") or ())])


def test_the_tree_is_true() -> None:
    tree = next(block for block in blocks(README, "") if block.startswith("nfbmr/"))
    folder = ""
    named = set()
    for line in tree.splitlines():
        path = line.split()[0]
        if not line.startswith(" "):
            folder = path
        named.add(path if path == folder else folder + path)
        assert (ROOT / (path if path == folder else folder + path)).exists(), line
    packages = {f"nfbmr/{init.parent.name}/" for init in (ROOT / "nfbmr").glob("*/__init__.py")}
    assert packages <= named


def test_architecture_names_every_module_and_nothing_else() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named: set[Path] = set()
    for section in re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        rooms = [ROOT / name for name in re.findall(r"`([^`]+)`", heading)]
        folders = [*(room for room in rooms if room.is_dir()), ROOT / "nfbmr", ROOT]
        for module in re.findall(r"`([a-z_/]+\.py)`", section):
            found = [folder / module for folder in folders if (folder / module).is_file()]
            assert found, f"docs/architecture.md, {heading}: there is no {module}"
            named.add(found[0])
    packages = ("nfbmr", "cluster", "tune", "mlflow_server")
    modules = {path for package in packages for path in (ROOT / package).rglob("*.py")}
    # One file a group of commands: main.py has the table of them.
    modules = {path for path in modules if not path.stem.startswith("__") and path.parent.name != "cli"}
    assert not modules - named, sorted(str(path.relative_to(ROOT)) for path in modules - named)


def test_the_list_of_methods_is_in_step() -> None:
    page = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`([a-z-]+)`\]\(([a-z-]+\.md)\) \|(.*)\|$", page, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(METHODS)
    for name, file, row in rows:
        cells = [cell.strip() for cell in row.split("|")]
        published = [layer for layer in re.findall(r"`([a-z-]+)`", cells[4]) if layer in NAMED]
        assert set(METHODS[name].published) <= set(published), name
        assert cells[3] == _parameters(nfbmr.configure(settings={"method": name})), name
        configurations = [nfbmr.configure(layer, settings={"method": name}) for layer in published]
        assert cells[5] == ", ".join(dict.fromkeys(map(_parameters, configurations))), name
        text = (ROOT / "docs" / "methods" / file).read_text(encoding="utf-8")
        for number in re.findall(r"[0-9 ]{7,}", f"{cells[3]}, {cells[5]}"):
            assert number.strip() in text, f"{file} does not count {number.strip()}"


def _parameters(config: Config) -> str:
    count = sum(blueprint(config).parameters().values())
    return f"{count:,}".replace(",", " ") if count else "measured"


def test_the_page_of_the_configuration_is_in_step() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == describe_markdown(), "say: make docs"


def test_every_key_named_in_the_pages_exists() -> None:
    inside = rf"`((?:{'|'.join(sections())})\.[a-z_.]+)`"
    for page in PAGES:
        named = set(re.findall(inside, page.read_text(encoding="utf-8")))
        files = {name for name in named if name.endswith(".py")}
        assert named - files <= keys().keys() | sections(), page.name


@pytest.mark.slow
def test_the_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = synthesize(tmp_path / "made", classes=["woven"], train=10, test_good=4, test_defective=6, size=64)
    (tmp_path / "parts").symlink_to(made / "woven")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried > 3
    assert failed == 0


def test_no_address_of_a_registry_or_of_this_machine_is_written_down() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    assert all(re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", line) for line in lock.splitlines())
