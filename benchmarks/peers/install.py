"""Install the measured systems: servers, a virtual environment, and programs in Go and JavaScript.

Needs Python 3.11 or later; Go for NATS and River, npm for the peers in JavaScript. All of it goes
into .venv-bench, but Debian's packages of RabbitMQ and Redis. Those would start a service: that is
refused while they are installed. A peer whose server or program is not there is skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
CLIENTS = Path(__file__).parent / "clients"
BIN = VENV / "programs"
SCRIPTS = VENV / "scripts"
#: Newer than that of most systems: pg-boss wants it.
NODE = SCRIPTS / "node_modules" / ".bin" / "node"
NATS = "github.com/nats-io/nats-server/v2@v2.15.3"
#: By Debian package, one of its programs.
PACKAGES = {
    "rabbitmq-server": "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "redis-server": "redis-server",
}
#: Decides whether a package may start its service; 101 means no.
POLICY = Path("/usr/sbin/policy-rc.d")


def install() -> None:
    """Install what is missing."""
    install_servers()
    install_packages()
    install_nats()
    install_river()
    install_scripts()


def install_servers() -> None:
    missing = [package for package, program in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(
            f"not installed: {', '.join(missing)}; run as root on Debian to have them", flush=True
        )
        return
    print(f"installing {', '.join(missing)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_services():
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", "-qq", *command],
                env=environment,
                stdout=subprocess.DEVNULL,
                check=False,
            )
            if done.returncode:
                print(f"apt-get {command[0]} failed", flush=True)
                return


@contextlib.contextmanager
def no_services() -> Iterator[None]:
    """Prevent packages from starting their services."""
    if POLICY.exists():  # not this script's; a container's also says no
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def install_packages() -> None:
    stamp = VENV / "installed"
    wanted = hashlib.sha256(
        REQUIREMENTS.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    ).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not PYTHON.exists():
        print("making .venv-bench", flush=True)
        venv.create(VENV, with_pip=True)
        (VENV / ".gitignore").write_text("*\n")
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("The peers' packages could not be installed.")
    stamp.write_text(wanted)


def install_nats() -> None:
    """Build the NATS server. Go builds only what has changed."""
    if tool("go", "NATS needs"):
        done(["go", "install", NATS], CLIENTS, {"GOBIN": str(BIN)})


def install_river() -> None:
    """Build River's client."""
    if tool("go", "River needs"):
        done(["go", "install", "-buildvcs=false", "."], CLIENTS / "river", {"GOBIN": str(BIN)})


def install_scripts() -> None:
    """Install what the clients in JavaScript import, and copy them beside it."""
    if not tool("npm", "pg-boss and Graphile Worker need"):
        return
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    lock = SCRIPTS / "package-lock.json"
    before = lock.read_bytes() if lock.exists() else b""
    for source in (CLIENTS / "node").glob("*.*js*"):
        shutil.copy(source, SCRIPTS)
    if lock.read_bytes() != before and not done(["npm", "ci", "--silent"], SCRIPTS):
        lock.unlink()  # to try again


def tool(name: str, peers: str) -> bool:
    if shutil.which(name):
        return True
    print(f"not installed: {name}, which {peers}", flush=True)
    return False


def done(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> bool:
    """Run a command that installs; say so if it fails."""
    ran = subprocess.run(
        command, cwd=folder, env=os.environ | (environment or {}), check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    if ran.returncode:
        print(f"{' '.join(command)} failed:\n{ran.stderr[-2000:]}", flush=True)
    return ran.returncode == 0


if __name__ == "__main__":
    install()
