"""Check the releases that requirements/dev.lock pins for known vulnerabilities.

Exit status 1 if some were found. If no service could be asked it says so, and does not fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements" / "dev.lock"
PATIENCE = 300


def verdict(output: str, errors: str) -> tuple[int, str]:
    """Return the exit status and the text for the output of pip-audit.

    Trap: it ends with 1 both for a vulnerability and for an unreachable service, and with 0 if the
    service does not know a single package.
    """
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        why = errors.strip().splitlines()[-1:] or ["it said nothing"]
        return 0, f"audit: NOT DONE, the vulnerability service could not be asked: {why[0]}"
    asked = [package for package in packages if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no release yet'}"
        for package in asked
        for vulnerability in package["vulns"]
    ]
    if found:
        return 1, "\n".join(["audit: VULNERABLE", *found])
    if not asked:
        return 0, f"audit: NOT DONE, the service knows none of the {len(packages)} packages"
    if len(asked) < len(packages):
        missing = len(packages) - len(asked)
        return (
            0,
            f"audit: nothing known against {len(asked)} packages; {missing} were NOT looked up",
        )
    return 0, f"audit: nothing known against {len(asked)} packages"


def main() -> None:
    """Run pip-audit."""
    command = ["pip-audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip",
               "--format", "json", "--progress-spinner", "off"]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        status, text = verdict(done.stdout, done.stderr)
    except subprocess.TimeoutExpired:
        status, text = verdict("", f"no answer within {PATIENCE} s")
    print(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
