"""What a DSN says of TLS reaches libpq with every connection that is opened, and holds there."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import durable_notify as dn
from durable_notify import schema
from tests.security.test_secrets import told
from tests.support.api import Api, maybe_await
from tests.support.cli import invoke, run
from tests.support.missing import need_program, skip_missing
from tests.support.postgres import binaries_of, binaries_of_the_system, local_binaries, own_server
from tests.support.wait import with_timeout

pytestmark = pytest.mark.server


def with_tls() -> Path:
    """Programs of a PostgreSQL that knows TLS; the embedded one does not."""
    for bindir in (local_binaries(), binaries_of_the_system()):
        if bindir is not None and "ssl" in configured(bindir):
            return bindir
    try:
        return binaries_of("17")
    except subprocess.CalledProcessError:
        skip_missing("PostgreSQL with TLS", "apt-get install postgresql")


def configured(bindir: Path) -> str:
    program = bindir / "pg_config"
    if not program.exists():
        program = Path(shutil.which("pg_config") or "/nowhere")
    if not program.exists():
        return ""
    done = subprocess.run([program, "--configure"], capture_output=True, text=True, check=False)
    return done.stdout if Path(program).parent == bindir else ""


def openssl(folder: Path, *arguments: str) -> None:
    program = need_program("openssl")
    subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """Two authorities, and a server's certificate of the first, for localhost by name alone."""
    for name in ("ours", "others"):
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")  # fmt: skip
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
            "-keyout", "server.key", "-out", "server.csr")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", "ours.crt", "-CAkey", "ours.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.crt")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    certificates(made)
    return made


@pytest.fixture(scope="module")
def tls(folder: Path) -> Iterator[str]:
    """The DSN, by name and without a word of TLS, of a server that refuses what is not encrypted."""
    with own_server(with_tls(), port=0) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            owner = server.data.stat()
            for name in ("server.key", "server.crt"):
                target = server.data / name
                target.write_bytes((folder / name).read_bytes())
                target.chmod(0o600)
                shutil.chown(target, owner.st_uid, owner.st_gid)
            rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n"
            (server.data / "pg_hba.conf").write_text(rules)
            admin.execute("ALTER SYSTEM SET ssl = on")
            admin.execute("SELECT pg_reload_conf()")
        schema.migrate(server.dsn())
        yield f"host=localhost port={server.port} user=postgres dbname=postgres"


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What reaches libpq: the connection strings it is given."""
    seen: list[dict[str, Any]] = []
    base = psycopg.Connection.__mro__[1]
    original = base._connect_gen.__func__

    def recording(cls: Any, conninfo: str = "", **options: Any) -> Any:
        seen.append(dict(conninfo_to_dict(conninfo)))
        return original(cls, conninfo, **options)

    monkeypatch.setattr(base, "_connect_gen", classmethod(recording))
    return seen


def verified(tls: str, folder: Path, authority: str = "ours", **more: str) -> str:
    settings = {"sslmode": "verify-full", "sslrootcert": str(folder / f"{authority}.crt")}
    return make_conninfo(tls, **{**settings, "ssl_min_protocol_version": "TLSv1.2", **more})


async def test_every_connection_of_a_day_is_verified(
    api: Api, tls: str, folder: Path, reached: list[dict[str, Any]]
) -> None:
    secure = verified(tls, folder)
    encrypted: list[tuple[str, bool]] = []

    def look() -> None:
        with psycopg.connect(secure) as connection:
            rows = connection.execute(
                "SELECT a.application_name, s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a"
                " USING (pid) WHERE a.application_name LIKE 'durable_notify%'"
            )
            encrypted.extend(rows)

    async def handle(message: Any) -> None:
        await asyncio.to_thread(look)
        if message.payload == 1 and api.is_async:
            async with message.transaction():
                pass
        if message.payload == 2:
            await message.retry(0)
            await message.extend(5) if message.attempt > 99 else None

    schema.migrate(secure)
    assert schema.snapshot(secure)
    async with api.connect(secure, autocommit=True) as mine:
        await maybe_await(api.Publisher().publish_many(mine, "t", [1, 2]))
    reached.clear()
    consumer = api.consumer(
        secure, api.name, listen_dsn=secure, until_empty=True, retry=dn.RetryPolicy(base=0.01)
    )
    await with_timeout(consumer.run(handle))
    with dn.Reader(secure, topics=["t"], listen_dsn=secure, until_empty=True) as reader:
        # The other half's may be there, too: the server is the module's.
        assert [message.payload for message in reader][-2:] == [1, 2]
    assert {name for name, _ in encrypted} >= {"durable_notify listener"}
    assert all(ssl for _, ssl in encrypted)
    names = {one.get("application_name") for one in reached}
    assert names >= {"durable_notify start", "durable_notify listener", "durable_notify probe"}
    assert not api.is_async or f"durable_notify handler {api.name}" in names
    assert {one.get("sslmode") for one in reached} == {"verify-full"}
    assert {one.get("sslrootcert") for one in reached} == {str(folder / "ours.crt")}
    assert {one.get("ssl_min_protocol_version") for one in reached} == {"TLSv1.2"}


def test_the_command_line(tls: str, folder: Path) -> None:
    secure = verified(tls, folder)
    bad = verified(tls, folder, "others")
    assert invoke("publish", "cli", "1", dsn=secure)[0] == 0
    for command in (["migrate"], ["status"], ["publish", "cli", "1"]):
        status, _, errors = invoke(*command, dsn=bad)
        assert status == 1
        assert "certificate" in errors
    consume = ("consume", "cli", "--group", "cli", "--until-empty", "--listen-dsn")
    assert run(*consume, secure, dsn=secure).returncode == 0
    done = run(*consume, bad, dsn=secure)
    assert done.returncode == 1
    assert "certificate" in done.stderr


#: A server of another owner, and one by another name than its certificate's.
IMPOSTORS = [{"authority": "others"}, {"host": "127.0.0.1"}]


@pytest.mark.parametrize("impostor", IMPOSTORS, ids=["authority", "name"])
async def test_a_server_that_is_another_is_refused(
    api: Api, tls: str, folder: Path, impostor: dict[str, str]
) -> None:
    """Whichever DSN it is: the certificate is looked at, and refused."""
    secure, bad = verified(tls, folder), verified(tls, folder, **impostor)
    for consumer in (api.consumer(bad), api.consumer(secure, listen_dsn=bad)):
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            await consumer.start()
    for reader in (dn.Reader(bad, topics=["t"]), dn.Reader(secure, topics=["t"], listen_dsn=bad)):
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            await asyncio.to_thread(reader.__enter__)
    for call in (schema.migrate, schema.snapshot):
        with pytest.raises(Exception, match="certificate") as error:
            call(bad)
        assert "certificate" in told(error.value)


async def test_a_setting_that_is_lost_would_be_noticed(
    api: Api, tls: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: what libpq is given has no sslmode any more."""
    from durable_notify._async.database import connection as asynchronous
    from durable_notify._sync.database import connection as synchronous

    for links in (asynchronous, synchronous):
        original = links.settings
        monkeypatch.setattr(
            links,
            "settings",
            lambda *args, original=original: {**original(*args), "sslmode": "require"},
        )
    bad = verified(tls, folder, host="127.0.0.1", sslrootcert="")
    consumer = api.consumer(bad)
    await consumer.start()  # which verify-full would not let happen
    await consumer.close()
