"""Goal: init writes what loads, validates and says what the documentation says; man pages, completion.

Method: the real commands, bash and groff; what is written is loaded as it is, and with each # taken out.
Not covered: zsh and fish themselves (their scripts are click's own).
"""

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import manpages
import pytest
import yaml
from click.testing import CliRunner, Result

from sidecar.cli import main
from sidecar.cli.program import COMMANDS
from sidecar.config import from_text, load
from sidecar.config.meanings import MEANINGS
from sidecar.config.schema import KEYS, rendered
from tests.cli.test_program import WITHIN_S, one_line
from tests.core.test_config_docs import ROWS
from tests.harness.process import unavailable


def init(*args: object) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, args)])


def written(*args: object) -> str:
    result = init(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_key_means_what_the_documentation_says() -> None:
    wanted = {path: ROWS[path][5].strip() for path, key in KEYS.items() if key.from_file}

    lines = [f"    {path!r}: {wanted[path]!r}," for path in wanted if MEANINGS.get(path) != wanted[path]]
    assert not lines, "sidecar/config/meanings.py should have\n" + "\n".join(lines)
    assert list(MEANINGS) == list(wanted)


@pytest.mark.parametrize(
    ("args", "holds"),
    [
        ((), {"cluster": "plant-7", "backend": "etcd", "etcd.endpoints": ["http://127.0.0.1:2379"]}),
        (
            ("--backend", "consul", "--cluster", "c"),
            {"cluster": "c", "consul.address": "http://127.0.0.1:8500"},
        ),
        (("--backend", "local", "--node", "no"), {"backend": "local", "node": "no"}),
        (
            ("--backend", "etcds://a.example:2379,b.example:2379"),
            {"etcd.endpoints": ["https://a.example:2379", "https://b.example:2379"]},
        ),
        (("--backend", "local:///srv/l.db"), {"local.path": "/srv/l.db"}),
    ],
)
def test_what_is_written_is_in_force_with_and_without_its_comments(
    args: tuple[str, ...], holds: dict[str, object]
) -> None:
    text = written(*args)
    found = from_text(text, {}, source="x")
    full = re.sub(r"(?m)^( *)#(?!status:)(\w+:) (.*)$", r"\1\2 \3", text)

    assert rendered(found) | holds == rendered(found)
    assert full != text
    assert from_text(full, {}, source="x") == found, "a comment shows something else than what is in force"
    for key in (key for key in KEYS.values() if key.from_file):
        name = key.path.rpartition(".")[2]
        foreign = key.path.split(".")[0] in {"etcd", "consul", "local"} - {found.backend}
        assert foreign or re.search(rf"(?m)^ *#?{name}:", text), f"{key.path} is missing"


def test_bug_what_init_writes_for_the_local_store_did_not_validate(home: Path, tmp_path: Path) -> None:
    """The folder of the store is ``paths.state``, which is not there before the first run."""
    (home / "ag_server_console").symlink_to("ag_server")
    file = tmp_path / "sidecar.yml"
    assert init("--backend", "local", "--from", home / "server.xml", file).exit_code == 0
    environ = {"SIDECAR_PATHS__STATE": f"{tmp_path}/var/state", "SIDECAR_PATHS__RUN": f"{tmp_path}/run"}

    result = CliRunner().invoke(main, ["validate", "-c", str(file)], env=environ)

    assert result.exit_code == 0, result.output
    assert not (tmp_path / "var").exists()


def test_a_server_that_is_there_is_taken_over(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yml"

    store = f"local://{tmp_path}/l.db"
    result = init("--from", home / "server.xml", "--backend", store, "--cluster", "c", file)

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{file}: written; next: sidecar validate -c {file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = load(file, {})
    assert (config.server.home, config.server.command) == (str(home), (f"{home}/ag_server",)), "all there is"
    assert "#tcp: [6460, 8443]" in file.read_text(), "the ports of server.xml"
    validated = CliRunner().invoke(main, ["validate", "-c", str(file)])
    assert validated.exit_code == 0, validated.output


def test_bug_the_launcher_of_a_whole_installation_was_not_the_default_one(home: Path) -> None:
    for name in ("ag_server_console", "ag_server_service"):
        (home / name).touch()

    command = from_text(written("--from", home / "server.xml"), {}, source="x").server.command

    assert command == (f"{home}/ag_server_console",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_server_goes_on_as_the_owner_of_its_files(home: Path) -> None:
    path = home / "server.xml"

    def user() -> str | None:
        return from_text(written("--from", path), {}, source="x").server.user

    assert user() is None, "root, or whoever runs the sidecar"
    os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    assert user() == "nobody"
    os.chown(path, 54_321, -1)
    assert user() is None, "nobody here has this number"


def test_a_native_failover_node_goes_after_its_master(home: Path) -> None:
    path = home / "other.xml"
    text = (home / "server.xml").read_text()
    path.write_text(re.sub(r"<clusterRole>.*?</clusterRole>", "<clusterRole>2</clusterRole>", text))

    found = from_text(written("--from", path), {}, source="x")

    assert found.node_options.priority == 50
    assert found.server.config_file == "other.xml"
    assert found.server.command[1:] == ("-f", "other.xml")


def test_warnings_go_to_stderr_and_no_secret_goes_anywhere(home: Path) -> None:
    path = home / "server.xml"
    path.write_text(re.sub(r"jdbc:postgresql:[^<]*", "jdbc:h2:file:/x;PASSWORD=hunter2", path.read_text()))

    result = init("--from", path)

    assert result.exit_code == 0
    assert "warning" in result.stderr
    assert "hunter2" not in result.output
    assert yaml.safe_load(result.stdout)["cluster"] == "plant-7"


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["--backend", "mongo"], 2, "--backend: no backend named mongo is installed"),
        (["--backend", "etcd://host"], 2, "has no port"),
        (["--cluster", "a b"], 2, "--cluster: 'a b' cannot be a name"),
        (["--node", "a b"], 2, "--node: 'a b' cannot be a name"),
        (["--from", "/nowhere/server.xml"], 1, "--from: /nowhere/server.xml: no such file"),
        (["--from", "/"], 1, "--from: /: is a folder; name the server.xml in it"),
        (["/nowhere/sidecar.yml"], 1, "/nowhere/sidecar.yml: cannot be written: no such file or directory"),
    ],
)
def test_what_cannot_be_is_one_line(args: list[str], status: int, says: str) -> None:
    result = init(*args)

    assert (result.exit_code, result.stdout) == (status, "")
    assert says in one_line(result.stderr)


@pytest.mark.parametrize("link", [False, True])
def test_a_file_that_is_there_is_never_touched(tmp_path: Path, link: bool) -> None:
    file = tmp_path / "sidecar.yml"
    if link:
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.write_text("mine")

    result = init(file)

    assert result.exit_code == 4
    assert "exists already" in one_line(result.stderr)
    assert not (tmp_path / "elsewhere").exists()
    assert link or file.read_text() == "mine"


# ---- completion and man pages


def test_bash_completes_commands_and_options() -> None:
    if shutil.which("bash") is None:
        unavailable("bash")
    script = (
        'source <(sidecar completion bash) && COMP_WORDS=(sidecar "$@") COMP_CWORD=$#'
        ' && _sidecar_completion sidecar && echo "${COMPREPLY[@]}"'
    )
    folder = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    for words, completed in (("sw", "switchover"), ("status -o j", "json")):
        command = ["bash", "-c", script, "bash", *words.split()]
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=WITHIN_S, env=env, check=False
        )
        assert (found.stdout, found.stderr) == (f"{completed}\n", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_a_script_of_their_own(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])

    assert result.exit_code == 0
    assert f"_SIDECAR_COMPLETE={shell}_complete" in result.stdout


def test_the_man_pages_are_sound_and_there_is_one_for_each_command(tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        unavailable("groff")
    manpages.write(tmp_path)
    pages = sorted(tmp_path.iterdir())
    assert [page.name for page in pages] == sorted(["sidecar.1", *(f"sidecar-{name}.1" for name in COMMANDS)])

    command = ["groff", "-man", "-ww", "-Tutf8", "-P-c", *map(str, pages)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=True)

    assert shown.stderr == "", "groff warns"
    text = re.sub(r".\x08", "", shown.stdout)
    assert len(re.findall(r"(?m)^EXIT STATUS$", text)) == len(COMMANDS)
    for words in ("sidecar-switchover - Ask the active to", "-h, --help", "NO_COLOR", "--raise-epoch"):
        assert words in text
