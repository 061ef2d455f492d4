"""What a release is made of: packages, workflows, and what must be there before a tag."""

from __future__ import annotations

import datetime as dt
import re
import shlex
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from durable_notify._version import __version__
from tests.schema.releases import Checkout
from tests.support.missing import need_package, skip_missing
from tests.support.postgres import CHECKOUT, Postgres
from tests.unit.test_tasks import tasks
from tools import rehearse
from tools.build import build
from tools.release import missing

WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


# Packages


@pytest.mark.slow
def test_packages_are_reproduced_and_have_what_they_need(tmp_path: Path) -> None:
    """build() itself compares the checkout's packages with those of its own sdist."""
    need_package("hatchling")
    sdist, wheel = sorted(build(tmp_path / "dist"), key=lambda path: path.suffix)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert tops == {
        ".gitignore", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "PKG-INFO",
        "README.md", "SECURITY.md", "benchmarks", "deploy", "docs", "durable_notify", "examples",
        "migrations", "model", "pyproject.toml", "pytest_durable_notify.py", "requirements",
        "tasks.py", "tests", "tools",
    }  # fmt: skip
    with zipfile.ZipFile(wheel) as packed:
        there = set(packed.namelist())
        (metadata,) = (packed.read(name).decode() for name in there if name.endswith("/METADATA"))
    ours = {name for name in names if name.startswith(("durable_notify/", "pytest_"))}
    ours |= {f"durable_notify/{name}" for name in names if name.startswith("migrations/")}
    info = f"durable_notify-{__version__}.dist-info"
    added = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert there == ours | added | {f"{info}/licenses/LICENSE"}
    assert not [name for name in names | there if "__pycache__" in name or "/.cache/" in name]
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata


@pytest.mark.slow
def test_a_build_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_package("hatchling")
    times = iter(("1000000000", "1000000002"))
    monkeypatch.setattr("tools.build.build_once", _with_times(times))
    with pytest.raises(SystemExit, match="not reproduced"):
        build(tmp_path / "dist")


def _with_times(times: Any) -> Any:
    from tools.build import build_once

    return lambda source, target, _epoch: build_once(source, target, next(times))


# What a release lacks


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A checkout that is ready, as far as `missing` looks."""
    (tmp_path / "CHANGELOG.md").write_text(f"## {__version__} (2026-12-01)\n")
    sums = tmp_path / "migrations" / "revisions" / "SHA256SUMS"
    sums.parent.mkdir(parents=True)
    names = [path.stem for path in (CHECKOUT / "migrations" / "versions").glob("*.py")]
    sums.write_text("".join(f"0  {name}.sql\n" for name in names))
    return tmp_path


def test_nothing_is_missing(released: Path) -> None:
    assert missing(f"v{__version__}", released) == []


def test_what_is_missing_is_said(released: Path) -> None:
    (released / "CHANGELOG.md").write_text("## 9.9.9 (unreleased)\n")
    (released / "migrations" / "revisions" / "SHA256SUMS").write_text("")
    version, changelog, *revisions = missing("v9.9.9", released)
    assert version == f"the tag is v9.9.9, and durable_notify/_version.py says {__version__}"
    assert changelog == "CHANGELOG.md has no line `## 9.9.9 (YEAR-MONTH-DAY)`"
    assert revisions[0] == "revision 0001 is not frozen"


# A release


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A repository like this checkout, before its version is released."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "x")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "x@x")
    copy = Checkout(tmp_path / "copy", server.admin_dsn)
    (copy.folder / "CHANGELOG.md").write_text(f"## {__version__} (unreleased)\n\n- It is.\n")
    shutil.copy(CHECKOUT / ".gitignore", copy.folder)
    git(copy.folder, "init", "--quiet")
    git(copy.folder, "add", "--all")
    git(copy.folder, "commit", "--quiet", "--message", "before")
    return copy


def test_a_release_is_one_commit_with_a_tag(repository: Checkout) -> None:
    tag, folder = f"v{__version__}", repository.folder
    done = repository.python("-m", "tools.release", tag)
    assert done.returncode == 0, done.stderr
    assert git(folder, "cat-file", "-t", tag) == "tag\n"  # annotated
    assert git(folder, "log", "--format=%s") == f"release: {tag}\nbefore\n"
    assert git(folder, "rev-parse", f"{tag}^{{}}") == git(folder, "rev-parse", "HEAD")
    assert git(folder, "status", "--porcelain") == ""
    assert f"{repository.newest_name()}.sql" in repository.sums()
    today = dt.datetime.now(dt.UTC).date()
    changelog = (folder / "CHANGELOG.md").read_text()
    assert changelog == f"## {__version__} ({today})\n\n- It is.\n"
    assert repository.python("-m", "tools.release", "--check", tag).returncode == 0

    again = repository.python("-m", "tools.release", tag)
    assert f"the tag {tag} is already there" in again.stderr


def test_a_release_that_is_refused_changes_nothing(repository: Checkout) -> None:
    changelog = repository.folder / "CHANGELOG.md"
    changelog.write_text("## 9.9.9 (unreleased)\n")
    before = git(repository.folder, "status", "--porcelain")
    for tag, complaint in (
        (f"v{__version__}", f"commit or remove first:\n{before.strip()}"),
        (f"v{__version__}", f"CHANGELOG.md has no line `## {__version__} (unreleased)`"),
        ("v9.9.9", f"the tag is v9.9.9, and durable_notify/_version.py says {__version__}"),
        ("", "Name the tag: python3 tasks.py release v0.1.0"),
    ):
        done = repository.python("-m", "tools.release", tag)
        assert done.returncode == 1
        assert complaint in done.stderr
    assert git(repository.folder, "status", "--porcelain") == before
    assert git(repository.folder, "tag") == ""


def test_the_rehearsal_finds_what_it_changes() -> None:
    assert (CHECKOUT / rehearse.CHANGED).exists()
    assert rehearse.find("2.0") is None
    text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(__version__)} \((unreleased|[\d-]+)\)$", text, re.MULTILINE)


# Workflows and what stands beside them


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_tasks_and_pin_actions(workflow: Path) -> None:
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    for command in commands:
        words = shlex.split(command, comments=True)
        if "tasks.py" in words:
            assert words[words.index("tasks.py") + 1] in tasks.TASKS
        else:
            assert (CHECKOUT / words[-1]).exists()
    text = workflow.read_text(encoding="utf-8")
    for action in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action)
    assert not re.search(r"secrets\.", text)


def test_all_versions_are_tested() -> None:
    jobs = yaml.safe_load(WORKFLOWS[0].read_text(encoding="utf-8"))["jobs"]
    prefix = "Programming Language :: Python :: 3."
    classified = {
        f"3.{line.removeprefix(prefix)}"
        for line in PYPROJECT["project"]["classifiers"]
        if line.startswith(prefix)
    }
    oldest = {step["with"]["python-version"] for step in steps(WORKFLOWS[0])[1:2]}
    assert set(jobs["pythons"]["strategy"]["matrix"]["python"]) | oldest == classified
    assert set(rehearse.PYTHONS) == classified
    assert jobs["servers"]["strategy"]["matrix"]["postgresql"] == list(tasks.POSTGRESQL)


def test_actionlint_finds_nothing() -> None:
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        skip_missing("actionlint", "go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.7")
    done = subprocess.run([actionlint, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_publishing_needs_no_secret() -> None:
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/release.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    publish = workflow["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert publish["environment"] == "pypi"


def test_hooks_and_forms() -> None:
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        words = hook["entry"].split()
        assert "tasks.py" not in words or words[2] in tasks.TASKS
    forms = (CHECKOUT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")
    bodies = [yaml.safe_load(form.read_text(encoding="utf-8")).get("body", []) for form in forms]
    assert any(bodies)
    for body in bodies:
        for part in body:
            assert part["type"] in {"markdown", "textarea", "input"}
            assert part["type"] == "markdown" or part["attributes"]["label"]


def test_dockerfile() -> None:
    """It is parsed; hadolint and a build need what is not here."""
    text = (CHECKOUT / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
    folded = re.sub(r"\\\n\s*", "", text)
    lines = [line for line in folded.splitlines() if line and not line.startswith("#")]
    words = {line.split()[0] for line in lines}
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD", "EXPOSE"}
    assert words <= known | {"STOPSIGNAL", "HEALTHCHECK"}
    for line in lines:
        if line.startswith("COPY"):
            source = line.split()[1]
            assert (CHECKOUT / "deploy/docker" / source).exists()
        if line.startswith("RUN"):
            assert shutil.which(line.split()[1])
    assert lines[0].startswith("FROM python:3.")
