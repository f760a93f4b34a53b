"""What the documentation says is so: links resolve, commands and paths exist, its Python runs."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import griffe
import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import nfbmr
from mlflow_server.registry.gate_settings import GATES
from nfbmr.cli.main import cli
from nfbmr.config import Config
from nfbmr.data.layouts import LAYOUTS
from nfbmr.data.synthesize import synthesize
from nfbmr.fields import keys, sections
from nfbmr.layers import set_layer
from nfbmr.methods.detector import blueprint
from nfbmr.methods.registry import METHODS, know_methods, named_configurations
from nfbmr.resolve import resolve
from scripts import diagrams, site_docstrings, site_hooks
from tune.cli.sweep import sweep
from tune.search.plan import SAMPLERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGES = ("nfbmr", "cluster", "tune", "mlflow_server")


def page_at(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


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
def test_commands_exist_and_take_these_options(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))  # where the pages say to copy it from
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
        subcommand = command.get_command(context, words.pop(0))
        assert subcommand is not None, line
        command = subcommand
        context = click.Context(command, parent=context)
    # the words are parsed, but nothing is run: a command's own options, and the number of its arguments
    parsed = command.make_context(str(command.name), [*words], parent=context.parent)
    know_methods({"method": parsed.params.get("method")})
    resolve([set_layer(parsed.params.get("assignments") or ())])


def test_the_tree_is_true() -> None:
    tree = next(block for block in blocks(page_at("docs/architecture.md"), "") if block.startswith("nfbmr/"))
    folder = ""
    named = set()
    for line in tree.splitlines():
        path = line.split()[0]
        if not line.startswith(" "):
            folder = path
        named.add(path if path == folder else folder + path)
        assert (ROOT / (path if path == folder else folder + path)).exists(), line
    rooms = {f"{top}/{init.parent.name}/" for top in PACKAGES for init in (ROOT / top).glob("*/__init__.py")}
    assert rooms <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    if page.name in ("CHANGELOG.md", "LOG.md"):  # what was so at the time
        return
    tops = "|".join((*PACKAGES, "tests", "docs", "scripts", "benchmarks"))
    made = "cluster/deploy/secrets/"  # by whoever starts the cluster
    for path in re.findall(rf"`((?:{tops})/[\w./-]*)`", page.read_text(encoding="utf-8")):
        assert path.startswith(made) or (ROOT / path).exists(), f"{page.name} names {path}"


def test_the_readme_is_one_page_with_a_picture() -> None:
    readme = page_at("README.md")
    assert len(readme.splitlines()) <= 100
    assert len(re.findall(r"^!\[.+\]\(docs/pictures/", readme, re.MULTILINE)) == 1


def words_of(page: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", page_at(page), re.MULTILINE)


def test_the_words_of_the_glossary_stand_in_the_code() -> None:
    words = words_of("docs/glossary.md")
    assert len(words) == len(set(words)) <= 30
    code = "\n".join(
        path.read_text(encoding="utf-8") for top in PACKAGES for path in (ROOT / top).rglob("*.py")
    )
    missing = [word for word in words if not re.search(rf"\b{re.escape(word)}\b", code)]
    assert not missing, "no longer spelled so in the code"


def test_start_here_has_fifteen_words_each_in_the_file_it_names() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| `(\S+\.py)` \|$", page_at("docs/start-here.md"), re.MULTILINE)
    assert [word for word, _ in rows] == words_of("docs/glossary.md")[:15]
    for word, file in rows:
        assert re.search(rf"\b{word}\b", page_at(file)), f"{file} has no {word}"


@pytest.mark.parametrize("name", diagrams.PICTURES)
def test_the_pictures_of_start_here_are_those_drawn_and_name_files_there_are(name: str) -> None:
    picture = diagrams.PICTURES[name]
    assert page_at(f"docs/pictures/{name}.svg") == diagrams.svg(picture), "say: python -m scripts.diagrams"
    assert f"pictures/{name}.svg" in page_at("docs/start-here.md")
    for box in picture.boxes:
        assert box.kept or (ROOT / box.file).is_file(), box


def test_samplers_gates_and_layouts_are_all_described() -> None:
    [choice] = [option.type for option in sweep.params if option.name == "sampler"]
    assert isinstance(choice, click.Choice)
    assert tuple(choice.choices) == SAMPLERS
    assert set(SAMPLERS) <= set(re.findall(r"`(?:--sampler )?(\w+)`", page_at("docs/sweeps.md")))
    described = re.findall(
        r"^\| `(\w+)` \|", page_at("docs/models.md").split("## The gates")[1], re.MULTILINE
    )
    assert tuple(described[: len(GATES)]) == GATES
    layouts = page_at("docs/your-folder.md").split("## Data sets by name")[1]
    assert set(LAYOUTS) - {"folder", "manifest"} <= set(re.findall(r"`(\w+)`", layouts))


def test_the_reference_has_every_module() -> None:
    rooms = {init.parent for top in PACKAGES for init in (ROOT / top).rglob("__init__.py")}
    files = [file.relative_to(ROOT) for room in rooms for file in room.glob("*.py")]
    modules = {".".join(file.with_suffix("").parts) for file in files if not file.stem.startswith("__")}
    shown = {module for room in site_hooks.rooms().values() for module in room}
    assert modules <= shown


def test_roles_of_a_docstring_become_links_that_are_checked() -> None:
    text = "See :class:`~nfbmr.config.Config`, :data:`LIMIT`::"
    assert site_docstrings.with_links(text) == "See [`Config`][nfbmr.config.Config], `LIMIT`:"


def test_a_public_name_without_a_docstring_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        '"""Parts."""\n\nLIMIT = 1\n\ndef shown(): ...\n\ndef _hidden(): ...\n\n'
        'class Part:\n    """One."""\n\n    def turn(self):\n        """Turn it."""\n\n'
        "class Round(Part):\n    def turn(self): ...\n"
    )
    extensions = griffe.load_extensions(site_docstrings.Docstrings())
    griffe.load("parts", search_paths=[tmp_path], extensions=extensions)
    told = [record.getMessage().split()[0] for record in caplog.records]
    assert told == ["parts.shown", "parts.Round", "parts.Round.turn"]


def test_a_dead_link_out_of_the_pages_is_told(caplog: pytest.LogCaptureFixture) -> None:
    config = MkDocsConfig()
    file = File("leaks.md", str(ROOT / "docs"), "site", use_directory_urls=False)
    text = "[log](../LOG.md#top), [grid](../benchmarks/quality/grid.py), [gone](../gone.md)"
    shown = site_hooks.on_page_markdown(text, Page("Leaks", file, config), config, Files([file]))
    assert shown == "[log](LOG.md#top), grid (`benchmarks/quality/grid.py`), [gone](../gone.md)"
    assert [record.args for record in caplog.records] == [("leaks.md", "../gone.md")]


@pytest.mark.slow
def test_the_site_is_made_strictly_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img)\b[^>]*?(?:src|href)=\"?([^\" >]+)", page.read_text("utf-8")
        )
        assert not [address for address in loaded if "//" in address], page


def test_the_list_of_methods_is_in_step() -> None:
    page = page_at("docs/methods/README.md")
    rows = re.findall(r"^\| \[`([a-z-]+)`\]\(([a-z-]+\.md)\) \|(.*)\|$", page, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(METHODS)
    for name, file, row in rows:
        cells = [cell.strip() for cell in row.split("|")]
        published = [
            layer for layer in re.findall(r"`([a-z-]+)`", cells[4]) if layer in named_configurations()
        ]
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
    command = [sys.executable, "-m", "nfbmr", "config", "--describe"]  # where no test has loaded a method
    described = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert page_at("docs/configuration.md") == described, "say: make docs"


def test_every_key_named_in_the_pages_exists() -> None:
    inside = rf"`((?:{'|'.join(sections())})\.[a-z_.]+)`"
    for page in PAGES:
        named = set(re.findall(inside, page.read_text(encoding="utf-8")))
        files = {name for name in named if name.endswith(".py")}
        assert named - files <= keys().keys() | sections(), page.name


@pytest.mark.slow
def test_the_python_in_the_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = synthesize(tmp_path / "made", classes=["woven"], train=10, test_good=4, test_defective=6, size=64)
    (tmp_path / "parts").symlink_to(made / "woven")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(ROOT / "docs" / "programs.md"), module_relative=False)
    assert tried > 3
    assert failed == 0


def test_no_address_of_a_registry_or_of_this_machine_is_written_down() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    assert all(re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", line) for line in lock.splitlines())
