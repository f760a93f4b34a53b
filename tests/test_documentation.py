"""What the documentation says is so: links resolve, commands and paths exist, its Python runs."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nfbmr.cli.config import describe_markdown
from nfbmr.cli.main import cli
from nfbmr.data.synthesize import synthesize
from nfbmr.fields import keys, sections
from nfbmr.layers import set_layer
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
    lines = (line.split("  #")[0].strip() for line in shown.splitlines())
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
