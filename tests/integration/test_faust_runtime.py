"""A lane's Faust app in a process of its own, on a real broker: what it commits, how it stops."""

import itertools
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from streams.kafka_clients import retried
from tests.faust_lane_process import DRAIN_SECONDS, GRACE_SECONDS
from tests.stack import create_topic, wait_until_blocking

PARTITIONS = 4
EXIT_GRACE_OVER = 75


class Worker:
    """The process, and what it wrote."""

    def __init__(self, arguments: list[str], notes: Path, log: Path) -> None:
        self._notes = notes
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faust_lane_process", *arguments],
                stdout=output,
                stderr=output,
            )

    def noted(self) -> Counter[tuple[int, int]]:
        """Return how often each (partition, offset) was handled."""
        if not self._notes.exists():
            return Counter()
        lines = [line.split() for line in self._notes.read_text().splitlines()]
        return Counter((int(line[0]), int(line[1])) for line in lines)

    def terminate(self, within: float) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.exit_code(within)

    def exit_code(self, within: float) -> int:
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within} s:\n{self.log()}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4_000:]


class Group:
    """A topic and the consumer group that reads it."""

    def __init__(self, kafka, prefix: str, folder: Path, processes: ExitStack) -> None:
        self._servers = kafka.bootstrap_servers
        self._processes = processes
        self._folder = folder
        self.name = f"{prefix}noting"
        self.topic = f"{prefix}input"
        self.ends: Counter[int] = Counter()
        self.workers: list[Worker] = []
        create_topic(self._servers, self.topic, partitions=PARTITIONS)

    def produce(self, ids: list[str]) -> None:
        producer = KafkaProducer(bootstrap_servers=self._servers)
        for number, id_ in enumerate(ids):
            partition = number % PARTITIONS
            producer.send(self.topic, key=f"item:{id_}".encode(), value=b"{}", partition=partition)
            self.ends[partition] += 1
        producer.flush(30)
        producer.close()

    def start(self, *options: str) -> Worker:
        notes = self._folder / f"notes-{len(self.workers)}.txt"
        worker = Worker(
            [self._servers, self.name, self.topic, str(notes), *options],
            notes,
            notes.with_suffix(".log"),
        )
        self._processes.callback(worker.kill)
        self.workers.append(worker)
        return worker

    def noted(self) -> Counter[tuple[int, int]]:
        """Return how often each (partition, offset) was handled, by whomever."""
        return sum((worker.noted() for worker in self.workers), Counter())

    def committed(self) -> dict[int, int]:
        admin = KafkaAdminClient(bootstrap_servers=self._servers)
        try:
            found = retried(lambda: admin.list_group_offsets({self.name: None}))[self.name]
        finally:
            admin.close()
        return {tp.partition: at.offset for tp, at in found.items() if at.offset >= 0}

    def state(self) -> str:
        admin = KafkaAdminClient(bootstrap_servers=self._servers)
        try:
            described = admin.describe_groups([self.name])
        finally:
            admin.close()
        return str(described)


@pytest.fixture
def group(kafka, topic_prefix, tmp_path) -> Iterator[Group]:
    with ExitStack() as processes:
        yield Group(kafka, topic_prefix, tmp_path, processes)


def settled_prefixes(noted: Counter[tuple[int, int]]) -> dict[int, int]:
    """Return, by partition, how many records from the first on were handled without a gap."""
    prefixes = {}
    for partition in range(PARTITIONS):
        offset = 0
        while (partition, offset) in noted:
            offset += 1
        prefixes[partition] = offset
    return prefixes


@pytest.mark.parametrize("options", [(), ("--slow-path",)], ids=["fast path", "upstream's path"])
def test_everything_is_handled_once_committed_and_a_stop_is_clean(group, options) -> None:
    group.produce([f"{number}" for number in range(2_000)])
    worker = group.start(*options)
    wait_until_blocking(lambda: len(worker.noted()) == 2_000, timeout=60, interval=0.1)
    wait_until_blocking(lambda: group.committed() == dict(group.ends), timeout=20, interval=0.1)

    assert worker.terminate(within=20) == 0, worker.log()

    assert set(worker.noted().values()) == {1}
    assert group.committed() == dict.fromkeys(range(PARTITIONS), 500)


def test_sigterm_in_the_middle_finishes_what_was_taken_and_the_next_process_the_rest(group) -> None:
    group.produce([f"{number}" for number in range(2_000)])
    worker = group.start("--batch-seconds", "0.05", "--max-batch", "8")
    wait_until_blocking(lambda: len(worker.noted()) >= 200, timeout=60)

    assert worker.terminate(within=20) == 0, worker.log()

    noted = worker.noted()
    assert len(noted) < 2_000
    assert settled_prefixes(noted) == {
        partition: group.committed().get(partition, 0) for partition in range(PARTITIONS)
    }
    assert sum(settled_prefixes(noted).values()) == len(noted)
    group.start()
    wait_until_blocking(lambda: len(group.noted()) == 2_000, timeout=60, interval=0.1)
    assert set(group.noted().values()) == {1}, "a clean stop costs no duplicates"


def test_a_hung_handler_is_abandoned_in_time_and_nothing_unsettled_is_committed(group) -> None:
    ids = [f"{number}" for number in range(400)]
    ids[201] = "hang-1"
    group.produce(ids)
    worker = group.start("--max-batch", "1")
    wait_until_blocking(lambda: len(worker.noted()) == 399, timeout=60, interval=0.1)
    before = time.monotonic()

    code = worker.terminate(within=GRACE_SECONDS + 10)

    assert code == 0, worker.log()
    assert time.monotonic() - before < DRAIN_SECONDS + 8
    committed = group.committed()
    assert committed[201 % PARTITIONS] == 201 // PARTITIONS
    assert all(
        committed[partition] <= end for partition, end in settled_prefixes(worker.noted()).items()
    )


def test_a_bug_in_a_handler_ends_the_process_and_its_record_comes_again(group) -> None:
    ids = [f"{number}" for number in range(200)]
    ids[120] = "bug-1"
    group.produce(ids)
    worker = group.start("--max-batch", "1")

    # One crash in four hangs inside upstream; then the grace period ends it.
    code = worker.exit_code(within=GRACE_SECONDS + 40)

    assert code in {1, EXIT_GRACE_OVER}, worker.log()
    committed = group.committed()
    assert committed.get(120 % PARTITIONS, 0) <= 120 // PARTITIONS
    prefixes = settled_prefixes(worker.noted())
    assert all(committed.get(partition, 0) <= prefixes[partition] for partition in prefixes)


def test_nothing_is_lost_when_a_second_worker_joins_and_is_killed(group) -> None:
    slow = ("--batch-seconds", "0.1", "--max-batch", "4")
    numbers = itertools.count()

    def produce_more() -> None:
        group.produce([f"{next(numbers)}" for _ in range(60)])

    def second_takes_part() -> bool:
        produce_more()
        return len(second.noted()) >= 20

    produce_more()
    first = group.start(*slow)
    wait_until_blocking(lambda: len(first.noted()) >= 20, timeout=60)
    second = group.start(*slow)
    wait_until_blocking(second_takes_part, timeout=60, interval=0.3)
    produce_more()
    second.kill()

    def all_handled() -> bool:
        return group.noted().keys() == {
            (partition, offset) for partition, end in group.ends.items() for offset in range(end)
        }

    wait_until_blocking(all_handled, timeout=90, interval=0.2)
    wait_until_blocking(lambda: group.committed() == dict(group.ends), timeout=20, interval=0.2)
    assert first.terminate(within=20) == 0, first.log()


def test_a_stop_while_it_joins_ends_in_time_even_when_the_broker_is_gone(
    own_kafka, topic_prefix, tmp_path
) -> None:
    with ExitStack() as processes:
        kafka = own_kafka()
        group = Group(kafka, topic_prefix, tmp_path, processes)
        group.produce(["1"])
        frozen = group.start()
        wait_until_blocking(lambda: len(frozen.noted()) == 1, timeout=60)
        frozen.process.send_signal(signal.SIGSTOP)
        joining = group.start()
        wait_until_blocking(lambda: "PreparingRebalance" in group.state(), timeout=30)
        kafka.pause()
        processes.callback(kafka.resume)

        assert joining.terminate(within=GRACE_SECONDS + 8) == EXIT_GRACE_OVER
