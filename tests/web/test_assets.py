"""The files that the dashboard serves: what is vendored is as it was, and mounting works."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from tests.support.postgres import CHECKOUT

STATIC = CHECKOUT / "durable_notify" / "web" / "static"

DJANGO = """
import sys
import httpx, uvicorn, threading, time
from django.conf import settings

settings.configure(SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False)
import django
django.setup()
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount
from durable_notify.web import Access, dashboard

urlpatterns = [path("", lambda request: HttpResponse("Django's own"))]
application = Starlette(routes=[
    Mount("/queue", dashboard(sys.argv[1], authorize=lambda _: Access("ann"))),
    Mount("/", get_asgi_application()),
])

class Ready(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        ready.set()

ready = threading.Event()
server = Ready(uvicorn.Config(application, port=0, log_level="error", lifespan="off"))
thread = threading.Thread(target=server.run)
thread.start()
ready.wait(20)
base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
print(httpx.get(base).text)
page = httpx.get(f"{base}/queue/topics")
print(page.status_code, 'href="/queue/groups"' in page.text)
server.should_exit = True
thread.join()
"""


def test_what_is_vendored() -> None:
    listed = re.findall(r"\| `(\S+)` \|.*`([0-9a-f]{128})`", (STATIC / "VENDORED.md").read_text())
    assert listed
    for name, wanted in listed:
        assert hashlib.sha512((STATIC / name).read_bytes()).hexdigest() == wanted, name
    ours = {"app.js", "theme.js", "app.css", "icon.svg", "VENDORED.md", "htmx.LICENSE"}
    found = {path.name for path in STATIC.iterdir() if path.is_file()}
    assert found >= ours
    scripts = {path for path in found if path.endswith(".js")}
    assert {name for name, _ in listed} <= scripts


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in (*STATIC.glob("*.css"), STATIC / "app.js", STATIC / "theme.js"):
        assert "http" not in path.read_text(), path
    for path in (STATIC.parent / "templates").glob("*.html"):
        assert "http" not in path.read_text(), path
        assert " style=" not in path.read_text(), path


def test_beside_django(dsn: str, tmp_path: Path) -> None:
    program = tmp_path / "site_of_ours.py"
    program.write_text(DJANGO)
    done = subprocess.run(
        [sys.executable, str(program), dsn], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Django's own", "200 True"]
