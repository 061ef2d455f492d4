"""Install the measured systems: servers from Debian's packages, and a virtual environment.

Needs nothing but Python 3.11 or later. RabbitMQ's and Redis's packages would start a service: that
is refused while they are installed. Where a server cannot be installed, its peers are shown as
failed.
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


if __name__ == "__main__":
    install()
