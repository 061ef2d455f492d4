"""The files in deploy/ are right, as far as that can be seen without the platforms they are for."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
import yaml
from prometheus_client import CollectorRegistry

from durable_notify import testing
from durable_notify.cli import cli
from durable_notify.diagnostics.probes import Probes
from durable_notify.integrations import prometheus
from durable_notify.middleware import Handling
from tests.diagnostics.test_metrics_and_probes import Stub, examples
from tests.docs.test_complete import first_column, section
from tests.support.cli import good, own_log
from tests.support.missing import need_program
from tests.support.observe import send
from tests.support.postgres import CHECKOUT
from tests.support.roles import roles
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]
DEPLOY = CHECKOUT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "durable-notify.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())


def yaml_of(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def parse(words: list[str]) -> click.Context:
    """Read a command line as the command does, without running it; raises where it is wrong."""
    name, *arguments = words
    command = cli.commands[name]
    with own_log():
        return command.make_context(name, arguments, resilient_parsing=False)


def options_exist(words: list[str]) -> None:
    """Every option on a command line is there, whose values stand in for others."""
    command: click.Command = cli
    for word in words:
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
    known = {name for param in command.params for name in param.opts}
    assert {word for word in words if word.startswith("--")} <= known, words


# Commands


def commands() -> Iterator[tuple[str, list[str]]]:
    unit = (DEPLOY / "systemd" / "durable-notify-consume@.service").read_text()
    (line,) = re.findall(r"^ExecStart=\S+/durable-notify (.*)$", unit, re.MULTILINE)
    values = {
        "$TOPICS": "orders",
        "%i": "billing",
        "${HANDLER}": "json:dumps",
        "${HEALTH_PORT}": "8080",
    }
    yield "systemd", [values.get(word, word) for word in shlex.split(line)]
    docker = (DEPLOY / "docker" / "Dockerfile").read_text()
    (line,) = re.findall(r"^CMD (\[.*\])$", docker, re.MULTILINE)
    yield "docker", json.loads(line)
    services = yaml_of("docker/compose.yaml")[0]["services"]
    yield "compose", services["migrate"]["command"]
    (deployment,) = yaml_of("kubernetes/consumer.yaml")
    yield "kubernetes", deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    unit = (DEPLOY / "systemd" / "durable-notify-maintain.service").read_text()
    (line,) = re.findall(r"^ExecStart=\S+/durable-notify (.*)$", unit, re.MULTILINE)
    yield "systemd maintain", shlex.split(line)
    (job,) = yaml_of("kubernetes/maintain.yaml")
    yield "kubernetes maintain", pod_of(job)["containers"][0]["args"]


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


COMMANDS = dict(commands())


@pytest.mark.parametrize("where", COMMANDS)
def test_commands(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEPLOY / "docker")  # where the handler is
    options_exist(COMMANDS[where])
    context = parse(COMMANDS[where])
    if where != "compose" and "maintain" not in where:
        assert context.params["group"] == "billing"
        assert context.params["topics"] == ("orders",)
        assert callable(context.params["handler"])
        assert context.params["health_port"] == 8080


def test_a_wrong_command_is_seen() -> None:
    """Else the test above could not fail."""
    with pytest.raises(click.UsageError):
        parse([*COMMANDS["docker"], "--healthy"])


# systemd, Docker, Kubernetes


UNITS = {
    "durable-notify-consume@.service": ("Restart=always", "Restart=perhaps"),
    "durable-notify-maintain.service": ("Type=oneshot", "Type=often"),
    "durable-notify-maintain.timer": ("OnBootSec=60", "OnBootSec=soon"),
}


@pytest.mark.server
@pytest.mark.parametrize("name", UNITS)
def test_systemd(name: str, tmp_path: Path) -> None:
    analyze = need_program("systemd-analyze", "systemd")
    for other in UNITS:  # a timer's service stands beside it
        text = (DEPLOY / "systemd" / other).read_text()
        there = re.sub(r"/srv/durable-notify/venv/bin/durable-notify", "/bin/true", text)
        (tmp_path / other.replace("@.", "@billing.")).write_text(there)
    unit = tmp_path / name.replace("@.", "@billing.")
    verify = [analyze, "verify", "--man=no", str(unit)]

    def complaints() -> str:
        done = subprocess.run(verify, capture_output=True, text=True, check=False, timeout=60)
        return done.stderr

    said = complaints()
    assert not [line for line in said.splitlines() if "durable-notify" in line], said
    right, wrong = UNITS[name]
    unit.write_text(unit.read_text().replace(right, wrong))
    assert f"{unit.name}:" in complaints(), "what is wrong is seen"


@pytest.mark.parametrize("where", ["systemd maintain", "kubernetes maintain"])
def test_maintenance_by_the_role_that_the_files_name(dsn: str, where: str) -> None:
    with roles(dsn, {"upkeep": [("maintain", None, None)]}) as made:
        good(*COMMANDS[where], dsn=made.login("upkeep"))


def test_cron_job() -> None:
    (job,) = yaml_of("kubernetes/maintain.yaml")
    assert job["spec"]["schedule"] == "* * * * *"
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    (consumer,) = yaml_of("kubernetes/consumer.yaml")
    theirs = consumer["spec"]["template"]["spec"]
    (mine,), (container,) = pod_of(job)["containers"], theirs["containers"]
    assert mine["securityContext"] == container["securityContext"]
    assert pod_of(job)["securityContext"] == theirs["securityContext"]
    assert pod_of(job)["restartPolicy"] == "Never"
    timer = (DEPLOY / "systemd" / "durable-notify-maintain.timer").read_text()
    assert "WantedBy=timers.target" in timer


def test_compose() -> None:
    (compose,) = yaml_of("docker/compose.yaml")
    services = compose["services"]
    for service in services.values():
        assert ("image" in service) != ("build" in service)
        assert set(service.get("depends_on", {})) <= services.keys()
    assert (
        services["consumer"]["depends_on"]["migrate"]["condition"]
        == "service_completed_successfully"
    )
    assert services["database"]["volumes"][0].split(":")[0] in compose["volumes"]
    password = services["database"]["environment"]["POSTGRES_PASSWORD"]
    dsn = services["consumer"]["environment"]["DURABLE_NOTIFY_DSN"]
    assert dsn == f"postgresql://postgres:{password}@database/shop"


def test_kubernetes() -> None:
    (deployment,) = yaml_of("kubernetes/consumer.yaml")
    pod = deployment["spec"]["template"]
    assert (
        deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    )
    (container,) = pod["spec"]["containers"]
    (port,) = container["ports"]
    arguments = container["args"]
    assert port["containerPort"] == int(arguments[arguments.index("--health-port") + 1])
    probes = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert [probe["path"] for probe in probes.values()] == ["/live", "/live", "/ready"]
    authentication, scaled = yaml_of("kubernetes/scaler.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_the_scalers_query(conn: Connection) -> None:
    """It is one number: what waits for the group, and what its consumers are at."""
    query = yaml_of("kubernetes/scaler.yaml")[1]["spec"]["triggers"][0]["metadata"]["query"]
    assert conn.execute(query).fetchall() == [(0,)]
    conn.execute("SELECT durable_notify.subscribe('billing', '{orders,payments}')")
    conn.execute("SELECT durable_notify.subscribe('other', '{orders}')")
    send(conn, range(7), "orders")
    send(conn, range(2), "payments")
    assert conn.execute(query).fetchall() == [(9,)]
    token = conn.execute(
        "SELECT token FROM durable_notify.claim('billing', '{orders}', 5)"
    ).fetchone()
    assert conn.execute(query).fetchall() == [(9,)]
    conn.execute("SELECT durable_notify.settle(l.token, l.ids) FROM durable_notify.lease l")
    assert token is not None
    assert conn.execute(query).fetchall() == [(4,)]


# Prometheus and Grafana


def queries() -> dict[str, str]:
    """The dashboard's queries and the alerts', by where they stand."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "10s")
            found[f"{panel['title']} {target['refId']}"] = expr.replace("$group", ".*").replace(
                "$topic", ".*"
            )
    for rule in ALERTS["groups"][0]["rules"]:
        # What it compares with: a rule that does not fire has no data.
        found[rule["alert"]] = re.sub(r" (>|==) \S+$", "", rule["expr"])
    return found


def metrics_documented() -> set[str]:
    return first_column(section("docs/events-and-metrics.md", "Metrics of Prometheus"))


def metrics_there() -> set[str]:
    """The names as PromQL has them."""
    registry = CollectorRegistry()
    prometheus.Metrics(registry)
    found = set()
    for family in registry.collect():
        found.add(f"{family.name}_total" if family.type == "counter" else family.name)
    sums = {f"durable_notify_group_{name}" for name in prometheus.GAUGES}
    more = {"durable_notify_up", "durable_notify_hidden_pairs"}
    asked = (*prometheus.GAUGES, *prometheus.UPKEEP)
    return found | {f"durable_notify_{name}" for name in asked} | sums | more


def test_every_metric_is_documented() -> None:
    assert metrics_documented() == metrics_there()


def test_every_metric_is_on_the_dashboard() -> None:
    text = " ".join(queries().values())
    for name in metrics_there():
        # What is summed up of a group, the dashboard sums up itself.
        assert name in text or re.search("notify_(group|hidden)_", name), name


def test_variables_of_the_dashboard() -> None:
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used == known
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_alerts_name_commands_that_there_are() -> None:
    summaries = " ".join(
        rule["annotations"]["summary"] + '"' for rule in ALERTS["groups"][0]["rules"]
    )
    named = re.findall(r"durable-notify ([^\"]*)", summaries)
    assert named
    for command in named:
        options_exist(command.split())
    promtool = shutil.which("promtool")
    if promtool is not None:
        config = str(DEPLOY / "prometheus" / "prometheus.yml")
        subprocess.run([promtool, "check", "config", config], check=True, capture_output=True)


@pytest.mark.server
def test_queries_find_data(dsn: str, conn: Connection, tmp_path: Path) -> None:
    """Each query of the dashboard and the alerts, asked of a Prometheus that scrapes a process."""
    program = need_program("prometheus")
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    send(conn, range(4))
    conn.execute("SELECT durable_notify.claim('g', '{t}', 1, '1 hour')")
    conn.execute(
        "INSERT INTO durable_notify.lost_message (group_name, topic, first_id, last_id, messages, reason)"
        " VALUES ('g', 't', 1, 2, 2, 'max_age')"
    )
    missing = dict(queries())
    with measured(dsn) as port, prometheus_of(program, tmp_path, port) as base:

        def all_find_data() -> bool:
            for name, query in list(missing.items()):
                if ask(base, query):
                    del missing[name]
            return not missing

        try:
            eventually(all_find_data, 60)
        except AssertionError:
            pytest.fail(f"without data: {missing}")
        (waiting,) = ask(base, queries()["Unread A"])
        assert waiting["value"][1] == "3"
        assert ask(base, "durable_notify_of_no_such_name") == []


@contextlib.contextmanager
def measured(dsn: str) -> Iterator[int]:
    """Serve the metrics of a consumer at which everything happens; yields the port."""
    registry = CollectorRegistry()
    metrics = prometheus.Metrics(registry)
    registry.register(backlog := prometheus.StatusCollector(dsn))
    ended = threading.Event()
    handling = metrics.handling(Handling("g", [testing.message(1, topic="t")], is_batch=False))

    def work() -> None:
        next(handling)
        while not ended.wait(0.05):
            for event in examples():
                metrics(event)

    worker = threading.Thread(target=work)
    worker.start()
    healthy = Stub(live=True, ready=True)
    try:
        with Probes(healthy, port=0, metrics=lambda: prometheus.page(registry)) as probes:
            yield probes.port
    finally:
        ended.set()
        worker.join()
        backlog.close()


@contextlib.contextmanager
def prometheus_of(program: str, folder: Path, target: int) -> Iterator[str]:
    """Have a Prometheus scrape a port often; yields where it answers."""
    config, log = folder / "prometheus.yml", folder / "log"
    job = {"job_name": "dn", "scrape_interval": "500ms", "scrape_timeout": "500ms",
           "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}  # fmt: skip
    config.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:  # it does not say which it took of 0
            address = f"127.0.0.1:{free.getsockname()[1]}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address={address}"],
                stdout=output, stderr=output,
            )  # fmt: skip
        eventually(lambda: b"ready to receive" in log.read_bytes() or process.poll() is not None)  # noqa: B023
        if process.poll() is None:
            break
    assert process.poll() is None, log.read_text()
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def ask(base: str, query: str) -> list[Any]:
    where = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(where, timeout=10) as answer:
            return list(json.loads(answer.read())["data"]["result"])
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 503:
                return []  # it is not ready yet
            raise AssertionError(f"{query}: {error.read().decode()}") from error
    except urllib.error.URLError:
        return []
