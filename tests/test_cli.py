"""The command line as programs and people meet it: output, exit codes, and what it imports."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from nfbmr import __version__
from nfbmr.cli import main as cli_main
from nfbmr.cli.main import COMMANDS, Entry, main
from nfbmr.cli.options import emit
from nfbmr.errors import DataError, Interrupted
from nfbmr.yaml_text import parse

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "matplotlib",
    "pyarrow",
    "sklearn",
    "scipy",
    "mlflow",
    "ray",
)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command `fail` that raises what it is told to."""

    def install(error: BaseException) -> None:
        @click.command()
        @click.option("--json", "as_json", is_flag=True)
        def fail(as_json: bool) -> None:
            raise error

        monkeypatch.setattr(cli_main, "fail_command", fail, raising=False)
        monkeypatch.setitem(cli_main.cli.entries, "fail", Entry("nfbmr.cli.main:fail_command", "fails"))

    return install


def modules_after(*arguments: str) -> set[str]:
    """Top-level modules that a command imports, in a Python of its own."""
    code = (
        "import sys; from nfbmr.cli.main import main; code = main(sys.argv[1:]);"
        "print('\\n'.join(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in completed.stderr.split()}


# ------------------------------------------------------------------------------------------------- quick


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["config"],
        ["completion", "bash"],
        ["server", "users", "--help"],
        *([name, "--help"] for name in COMMANDS),
    ],
    ids=" ".join,
)
def test_help_and_config_import_nothing_heavy(arguments: list[str]) -> None:
    assert not modules_after(*arguments) & set(HEAVY)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    for name, entry in COMMANDS.items():
        assert name in output
        assert entry.help.split(".", maxsplit=1)[0][:40] in output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: nfbmr {name}" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def leaves(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from leaves(below, *words, name)
    else:
        yield " ".join(words), command


def test_every_command_takes_json() -> None:
    without = [
        name
        for name, command in leaves(cli_main.cli)
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == []


# -------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (DataError("no images", where="parts/", fix="check the path"), 2, "DataError"),
        (Interrupted("stopped after epoch 3", fix="go on with --resume"), 130, "Interrupted"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (click.UsageError("no such thing"), 2, "UsageError"),
        (OSError(errno.ENOSPC, "No space left on device", "/full/file"), 2, "OutputError"),
        (OSError(errno.EROFS, "Read-only file system", "/ro/file"), 2, "OutputError"),
        (ModuleNotFoundError("No module named 'mlflow'", name="mlflow"), 2, "MissingPackageError"),
        (RuntimeError("what?"), 1, "RuntimeError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_errors_end_with_their_code_and_are_told_to_people_and_programs(
    error: BaseException, code: int, kind: str, raising: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error)
    assert main(["fail", "--json"]) == code
    output = capsys.readouterr()
    answer = json.loads(output.out)["error"]
    assert (answer["type"], answer["exit_code"]) == (kind, code)
    assert answer["what"]
    assert answer["what"] in output.err
    assert answer["fix"] is None or answer["fix"] in output.err
    assert "Traceback" not in output.err

    assert main(["fail"]) == code
    assert capsys.readouterr().out == ""


def test_ctrl_c_before_there_is_a_run_says_what_to_do(
    raising: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(KeyboardInterrupt())
    assert main(["fail", "--json"]) == 130
    output = capsys.readouterr()
    fix = json.loads(output.out)["error"]["fix"]
    assert "run the same command again" in fix
    assert fix in output.err


@pytest.mark.parametrize("ask", ["option", "environment"])
def test_a_traceback_is_shown_when_asked_for(
    ask: str, raising: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(RuntimeError("what?"))
    if ask == "environment":
        monkeypatch.setenv("NFBMR_DEBUG", "1")
    assert main(["fail", *(["--debug"] if ask == "option" else [])]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "did you mean train?"),
        (["config", "--nonsense"], "--nonsense"),
        (["config", "--set", "flow.block=8"], "did you mean flow.blocks?"),
        (["config", "--config", "papr"], "did you mean paper?"),
        (["config", "--method", "nf-bm"], "did you mean nf-bmr?"),
        (["config", "--config", "no-such.yaml"], "no-such.yaml"),
        (["config", "--seed", "x"], "--seed"),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_bad_input_ends_with_2(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert hint in output.err
    assert output.out == ""


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; from nfbmr.cli.main import main; sys.exit(main(['config', '--describe']))"
    reader, writer = os.pipe()
    os.close(reader)
    completed = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (completed.returncode, completed.stderr) == (141, "")


# ------------------------------------------------------------------------------------------------- config


def test_config_prints_a_file_that_config_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "paper", "--set", "flow.blocks=8", "--seed", "0", "--data", "a b"]
    assert main(["config", *arguments]) == 0
    printed = capsys.readouterr().out
    assert all(f"# {origin}" in printed for origin in ("paper", "--set", "--seed", "--data"))
    file = tmp_path / "again.yaml"
    file.write_text(printed)
    assert main(["config", "--config", str(file)]) == 0
    assert parse(capsys.readouterr().out).value == parse(printed).value


def test_config_as_json_has_values_and_origins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--json", "--category", "3"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["config"]["data"]["category"] == "3"
    assert summary["origins"]["data.category"] == "--category"
    assert summary["origins"]["data.split"] == "default"


def test_methods_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--methods"]) == 0
    assert "nf-bmr" in capsys.readouterr().out
    assert main(["config", "--methods", "--json"]) == 0
    assert "paper" in json.loads(capsys.readouterr().out)["configurations"]


def test_json_holds_no_number_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": float("nan"), "b": (1.5, float("inf")), "c": Path("x/y"), 3: None, "é": True}, as_json=True)
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": None, "b": [1.5, None], "c": "x/y", "3": None, "é": True}


# ------------------------------------------------------------------------------------------- logs, shells


@pytest.mark.parametrize(
    ("flags", "seen"), [([], ["info", "worry"]), (["-v"], ["detail", "info", "worry"]), (["-q"], [])]
)
def test_messages_go_to_standard_error(
    flags: list[str], seen: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def talk() -> None:
        log = logging.getLogger("nfbmr.test")
        log.debug("detail")
        log.info("info")
        log.warning("worry")
        click.echo("result")

    monkeypatch.setattr(cli_main, "talk_command", talk, raising=False)
    monkeypatch.setitem(cli_main.cli.entries, "talk", Entry("nfbmr.cli.main:talk_command", "talks"))
    assert main(["talk", *flags]) == 0
    output = capsys.readouterr()
    assert output.out == "result\n"
    assert [word for word in ("detail", "info", "worry") if word in output.err] == seen
    assert main([*flags, "talk"]) == 0
    output = capsys.readouterr()
    assert [word for word in ("detail", "info", "worry") if word in output.err] == seen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_say_how_to_install_them(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script.startswith("# install: nfbmr completion")
    assert "_NFBMR_COMPLETE" in script
    assert main(["completion", shell, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["shell"], answer["script"]) == (shell, script.rstrip("\n"))
    assert f"# install: {answer['install']}\n" in script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nfbmr tr", "train"),
        ("nfbmr config --set flow.bl", "flow.blocks="),
        ("nfbmr config --set data.split=gr", "data.split=group"),
        ("nfbmr config --config pa", "paper"),
        ("nfbmr config --cat", "--category"),
    ],
)
def test_the_shell_completes(words: str, expected: str) -> None:
    environment = {
        **os.environ,
        "_NFBMR_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "import sys; from nfbmr.cli.main import main; sys.exit(main())"
    completed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert expected in [line.partition(",")[2] for line in completed.stdout.splitlines()]


# ------------------------------------------------------------------------------------- commands of others


@pytest.fixture
def added(tmp_path: Path) -> Any:
    """Runs nfbmr where another package is installed that adds a command, and one that cannot be loaded."""
    info = tmp_path / "site" / "other-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[nfbmr.commands]\npolish = other_commands:polish\nbroken = other_commands:nothing\ntrain = x:y\n"
    )
    (tmp_path / "site" / "other_commands.py").write_text(
        'import click\n\n@click.command()\n@click.argument("part")\ndef polish(part):\n'
        '    """Polish a PART."""\n    click.echo(f"{part} shines")\n'
    )
    code = "import sys; from nfbmr.cli.main import main; sys.exit(main())"
    path = os.pathsep.join([str(tmp_path / "site"), *sys.path])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": path},
        )

    return run


def test_an_installed_package_adds_a_command(added: Any) -> None:
    completed = added("polish", "bolt", "--verbose")
    assert (completed.returncode, completed.stdout) == (0, "bolt shines\n")
    listed = added("--help").stdout
    assert "Polish a PART." in listed
    assert "did you mean polish?" in added("polsh").stderr


def test_ours_come_first_and_a_broken_command_says_whose_it_is(added: Any) -> None:
    assert "Usage: nfbmr train" in added("train", "--help").stdout
    completed = added("broken")
    assert completed.returncode == 2
    assert "other" in completed.stderr
    assert added("--help").returncode == 0
