"""Kafka: Apache Kafka itself from Maven's jars, else in a container, else an emulation of it."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from tests.support.brokers import Server, answers, free_port
from tests.support.missing import need_package, skip_missing
from tests.support.postgres import docker_answers
from tests.support.wait import eventually

POM = Path(__file__).with_name("kafka.pom.xml")
#: A single broker that is its own controller. Topics are created when a client asks for them.
SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
log.segment.bytes=10485760
log.cleaner.enable=false
"""
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "durable_notify-tests"


@functools.cache
def jars() -> Path | None:
    """Return the folder of Kafka's jars, which Maven fetches once; None: there is no Java or Maven.

    It also has a formatted storage, which each server copies, since to format one takes seconds.
    """
    if not (shutil.which("java") and shutil.which("mvn")):
        return None
    folder = CACHE / f"kafka-{version()}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as made:
                fetched = Path(made) / "kafka"
                if not _fetch(fetched):
                    return None
                fetched.rename(folder)
    return folder


def version() -> str:
    """Return the version of Kafka that the pom names."""
    return POM.read_text().split("<!-- Kafka --><version>")[1].split("<")[0]


def _fetch(folder: Path) -> bool:
    maven = ("mvn", "--batch-mode", "--quiet", "--file", str(POM))
    try:
        done = subprocess.run(
            [*maven, "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'jars'}"],
            cwd=folder.parent, capture_output=True, timeout=180, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    if done.returncode:
        return False
    (folder / "settings").write_text(SETTINGS.format(folder=folder, port=1, controller=2))
    tool = ("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ")
    subprocess.run(
        [*JAVA, "-cp", f"{folder / 'jars'}/*", *tool, "-c", str(folder / "settings")],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    return True


class ApacheKafka(Server):
    """Kafka itself, on files, with one broker in KRaft mode."""

    program = "java"
    scheme = "kafka"
    as_root = True  # its jars lie in a folder that only root may enter

    def prepare(self) -> None:
        found = jars()
        assert found is not None
        self._jars = found / "jars"
        shutil.copytree(found / "data", self.folder / "data")
        settings = SETTINGS.format(folder=self.folder, port=self.port, controller=free_port())
        (self.folder / "settings").write_text(settings)

    def command(self) -> list[str]:
        return [*JAVA, "-cp", f"{self._jars}/*", "kafka.Kafka", str(self.folder / "settings")]

    def is_ready(self) -> bool:
        """It accepts connections long before its coordinators are loaded."""
        if not answers(self.port):
            return False
        from confluent_kafka import KafkaException, Producer

        asking = Producer(
            {
                "bootstrap.servers": f"127.0.0.1:{self.port}",
                "transactional.id": "is it ready?",
                "log_level": 0,
            }
        )
        with contextlib.suppress(KafkaException):
            asking.init_transactions(20)
            return True
        return False


class EmulatedKafka:
    """librdkafka's mock cluster: an emulation of Kafka, in a process of its own, kept in memory.

    It is no Kafka: what it shows is how the relay uses the protocol, and nothing of a broker's
    durability. To be killed, it is stopped for a while (SIGSTOP): killed, it would forget all.
    """

    CODE = """
import sys, confluent_kafka
cluster = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "-",
                                    "log_level": 0})
(broker,) = cluster.list_topics(timeout=10).brokers.values()
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""

    def __init__(self) -> None:
        need_package("confluent_kafka", "confluent-kafka")
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().decode().strip()

    @property
    def url(self) -> str:
        return f"kafka://{self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def start(self) -> None:
        self._process.send_signal(signal.SIGCONT)


class DockerKafka:
    """Kafka in a container of Docker's."""

    def __init__(self) -> None:
        from testcontainers.community.kafka import KafkaContainer

        self.port = free_port()
        self._container = KafkaContainer().with_kraft().with_bind_ports(9093, self.port)
        self._container.start()

    @property
    def url(self) -> str:
        return f"kafka://{self._container.get_bootstrap_server()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.stop()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def start(self) -> None:
        self._container.get_wrapped_container().start()


def kafka() -> Any:
    """Return Kafka itself if Java and Maven or Docker are there, else the emulation."""
    need_package("confluent_kafka", "confluent-kafka")
    if jars() is not None:
        return ApacheKafka()
    return DockerKafka() if docker_answers() else EmulatedKafka()


def itself() -> Any:
    """Return Kafka itself, or skip the test."""
    found = kafka()
    if isinstance(found, EmulatedKafka):
        found.__exit__()
        skip_missing("Kafka", "apt-get install default-jre-headless maven")
    return found


def delete_topic(servers: str, topic: str) -> None:
    """Delete a topic, and wait until it has gone."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    admin.delete_topics([topic])[topic].result(20)
    eventually(lambda: topic not in admin.list_topics(timeout=5).topics)
