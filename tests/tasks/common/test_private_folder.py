"""Folders that hold code: this user's alone, or refused in words."""

import os
from pathlib import Path

import jax
import pytest

from veldt.tasks.common import compiling, errors
from veldt.tasks.pool import base as base_lib
from veldt.tasks.pool import config, ray_cluster

NOBODY = 12345


def other_owner(monkeypatch, *paths):
    """Lets paths seem another user's."""
    lstat, stat = Path.lstat, Path.stat

    def seen(call):
        def lstat(path, **kwargs):
            found = call(path, **kwargs)
            if path in paths:
                fields = list(found)
                fields[4] = NOBODY
                return os.stat_result(fields)
            return found

        return lstat

    monkeypatch.setattr(Path, "lstat", seen(lstat))
    monkeypatch.setattr(Path, "stat", seen(stat))


def plant(kind, base, path, monkeypatch):
    """Makes `path`, a folder in `base`, what another user may have made of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "a link":
            (base / "theirs").mkdir(mode=0o700)
            path.symlink_to(base / "theirs")
        case "a dangling link":
            path.symlink_to(base / "nowhere")
        case "a file":
            path.write_text("")
        case "another user's":
            path.mkdir(mode=0o700)
            other_owner(monkeypatch, path)
        case "writable by a group" | "writable by all":
            path.mkdir()
            path.chmod(0o770 if "group" in kind else 0o777)
        case "in a folder of another user":
            path.mkdir(mode=0o700)
            other_owner(monkeypatch, path.parent.resolve())
        case "in a folder writable by all":
            path.mkdir(mode=0o700)
            path.parent.chmod(0o777)


HOSTILE = {
    "a link": "is a link or a file",
    "a dangling link": "is a link or a file",
    "a file": "is a link or a file",
    "another user's": f"belongs to user {NOBODY}, not to you",
    "writable by a group": "can be written by others (its mode is 0770)",
    "writable by all": "can be written by others (its mode is 0777)",
    "in a folder of another user": f"belongs to user {NOBODY}",
    "in a folder writable by all": "can be written by everyone",
}


@pytest.fixture
def jax_has_no_cache():
    """Run as in a process without a cache; restore what is set."""
    names = (
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def use(what, base, monkeypatch):
    """Each thing that keeps code in a folder: that folder, and what takes it into use."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(base / "cache"))
    monkeypatch.setenv("RAY_TMPDIR", str(base / "tmp"))
    (base / "tmp").mkdir(mode=0o700)
    mine = base / "tmp" / f"veldt-{os.getuid()}"
    return {
        "a command's compiled programs": (
            base / "cache" / "veldt" / "compiled",
            compiling.keep_compiled,
        ),
        "a worker's temporary folder": (mine, lambda: compiling.keep_compiled_for("session_1")),
        "a worker's compiled programs": (
            mine / "compiled" / "session_1",
            lambda: compiling.keep_compiled_for("session_1"),
        ),
        "Ray's sockets and logs": (mine, lambda: connect(monkeypatch)),
    }[what]


def connect(monkeypatch):
    import ray

    def init(*args, **kwargs):
        raise ValueError(f"temp_dir is {kwargs['_temp_dir']}")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray_cluster.connect(config.PoolConfig("ray"))


PLACES = (
    "a command's compiled programs",
    "a worker's temporary folder",
    "a worker's compiled programs",
    "Ray's sockets and logs",
)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("what", PLACES)
def test_what_another_user_could_change_is_refused(
    what, kind, tmp_path, monkeypatch, jax_has_no_cache
):
    path, start = use(what, tmp_path, monkeypatch)
    plant(kind, tmp_path, path, monkeypatch)
    with pytest.raises(errors.TaskError) as caught:
        start()
    assert HOSTILE[kind] in str(caught.value) and str(path.name) in str(caught.value)
    assert "remove it, or set " in str(caught.value)
    assert jax.config.jax_compilation_cache_dir is None
    assert isinstance(caught.value, base_lib.PoolError) == (what == PLACES[-1])


@pytest.mark.parametrize("what", PLACES[:-1])
def test_what_is_made_is_this_users_alone(what, tmp_path, monkeypatch, jax_has_no_cache):
    path, start = use(what, tmp_path, monkeypatch)
    path.mkdir(parents=True, mode=0o755)  # As an earlier version left it.
    before = os.umask(0)
    try:
        start()
    finally:
        os.umask(before)
    kept = Path(jax.config.jax_compilation_cache_dir)
    assert path in (kept, *kept.parents)
    for each in (kept, path):
        assert each.stat().st_mode & 0o777 == 0o700


def test_ray_gets_the_folder(tmp_path, monkeypatch):
    path, start = use(PLACES[-1], tmp_path, monkeypatch)
    with pytest.raises(base_lib.PoolError, match=f"temp_dir is {path}/ray"):
        start()


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path, monkeypatch, jax_has_no_cache):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compiling.keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("session", ["..", "a/b", "", "."])
def test_a_session_is_one_folder(session, tmp_path, monkeypatch, jax_has_no_cache):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    compiling.keep_compiled_for(session)
    assert jax.config.jax_compilation_cache_dir is None


def test_the_cluster_that_another_user_wrote_down_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    ray_cluster._check_whose()  # There is none.
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text("10.0.0.1:6379")
    ray_cluster._check_whose()  # This user's.
    other_owner(monkeypatch, note)
    with pytest.raises(base_lib.PoolError, match=f'"auto" would take .* user {NOBODY} wrote'):
        ray_cluster._check_whose()
