"""A directory is held by one process, which is named, until it ends; readers are not kept out."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from veldt.tasks.common.disk.lock import DirectoryLock
from veldt.tasks.common.errors import FileError

ROOT = Path(__file__).parents[4]
HOLD = """
import sys, time
from pathlib import Path
from veldt.tasks.common.disk.lock import DirectoryLock
held = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_the_second_is_refused_and_its_error_names_the_holder(tmp_path):
    holder = rf"host {socket.gethostname()}, process {os.getpid()}, since 20\d\d-"
    with DirectoryLock(tmp_path):
        for _ in range(2):  # The first refusal erased nothing.
            with pytest.raises(FileError, match=rf"in use by another veldt process \({holder}"):
                DirectoryLock(tmp_path)
        assert (tmp_path / "lock").read_text().startswith("host ")
    DirectoryLock(tmp_path).close()


def test_a_process_that_is_killed_gives_it_back(tmp_path):
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(FileError, match=f"process {process.pid}"):
                DirectoryLock(tmp_path)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    DirectoryLock(tmp_path).close()


def test_what_is_no_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file cannot be written: "):
        DirectoryLock(tmp_path / "file")
