"""A directory that one process works in is refused to a second; the error names the first."""

import os
import socket
import textwrap
from pathlib import Path

import pytest

from tests.veldt.test_stopped_commands import CONFIGS, TASK
from veldt import cli
from veldt.tasks.common import compiling
from veldt.tasks.common.disk import lock

LONG_COMMANDS = [name for name, command in cli.COMMANDS.items() if command.config_class]


@pytest.mark.parametrize("name", LONG_COMMANDS)
def test_the_second_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiling, "keep_compiled", lambda: None)
    module = f"alone_{os.getpid()}_{name.replace('-', '_')}"
    Path(f"{module}.py").write_text(TASK)
    config = textwrap.dedent(CONFIGS[name]).replace("mine:", f"{module}:")
    Path("my.yaml").write_text(config)
    place = Path("run")
    place.mkdir()
    words = [name, "my.yaml", "--run-dir", "run"]
    if name == "evaluate":
        words = [name, "sgd", "--suite", "my.yaml", "--out", "run"]
    with lock.DirectoryLock(place):
        assert cli.main(words) == 1
    err = capsys.readouterr().err
    holder = f"(host {socket.gethostname()}, process {os.getpid()}, since "
    assert f"{place} is in use by another veldt process {holder}" in err
    assert err.startswith("error: ") or "\nerror: " in err
    assert {path.name for path in place.iterdir()} == {"lock"}
