"""The wheel works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import psycopg
import pytest

from durable_notify import schema
from tests.support.missing import need_package
from tests.support.postgres import CHECKOUT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_package("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    build = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=CHECKOUT, check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a clean environment with the wheel in it; its dependencies are borrowed."""
    folder = tmp_path_factory.mktemp("far") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    places = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", places))
    # Unpacked, which is what pip does with a wheel as plain as this one, in a tenth of the time.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def python(installed: Path, code: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(installed), "-I", "-W", "error", "-c", code, *arguments],
        cwd="/",
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_has_the_assets_of_the_dashboard(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    web = CHECKOUT / "durable_notify" / "web"
    assets = [
        path for path in (*web.glob("**/static/*"), *web.glob("templates/*")) if path.is_file()
    ]
    assert assets
    assert {path.relative_to(CHECKOUT).as_posix() for path in assets} <= names


def test_wheel_has_all_of_the_migrations(wheel: Path) -> None:
    found = [path for path in (CHECKOUT / "migrations").rglob("*") if path.is_file()]
    ours = [path for path in found if "__pycache__" not in path.parts]
    assert CHECKOUT / "migrations" / "revisions" / "SHA256SUMS" in ours
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    missing = {f"durable_notify/{p.relative_to(CHECKOUT)}" for p in ours} - names
    assert missing == set()
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_migrations_run_from_the_wheel(installed: Path, empty_dsn: str, dsn: str) -> None:
    code = """if True:
        import sys
        from durable_notify import schema
        schema.migrate(sys.argv[1])
        print(schema.migrations_path())
    """
    where = python(installed, code, empty_dsn).strip()
    assert Path(where).is_relative_to(installed.parents[1])
    assert schema.snapshot(empty_dsn) == schema.snapshot(dsn)
    with psycopg.connect(empty_dsn) as connection:
        schema.check(connection)


def test_offline_sql_is_printed_from_the_wheel(installed: Path) -> None:
    code = "from durable_notify import schema; print(schema.migration_sql(), end='')"
    assert python(installed, code) == schema.migration_sql()


def test_the_wheel_has_the_pytest_plugin(installed: Path) -> None:
    code = """if True:
        from importlib.metadata import entry_points
        (plugin,) = entry_points(group="pytest11", name="durable_notify")
        print(plugin.load().__file__)
    """
    where = python(installed, code).strip()
    assert Path(where).is_relative_to(installed.parents[1])
