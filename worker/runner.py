"""The RQ worker as we run it: in this process, on one queue, and only while Postgres answers.

RQ's default worker forks for each job: six times slower for jobs as short as ours, and each would connect anew.
What its fork gives, isolation, the supervisor gives by restarting whoever dies.
"""

import time
from contextlib import suppress
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job as RQJob

from billingwatch.queues import Job, MessagePack, Queue
from billingwatch.store.connection import StoreAwayError
from worker.process import Process

log = structlog.get_logger(__name__)

# Recovery after kill -9: a job's entry expires `timeout + GRACE` after it began, maintenance looks every MAINTENANCE
# seconds, or when a blocking pop ends that began just before, and RQ wants to see an orphan twice, a minute apart:
# 30 + 5 + 30 + 60 + 30 s at the worst.
MAINTENANCE = 15  # seconds
GRACE = 5  # seconds
WORKER_TTL = 30  # seconds; a worker blocks on an empty queue for half of it, then does maintenance
RECONNECT = 2.0  # seconds at most between two tries to reach Redis; RQ's minute would begin when Redis is back
PROBE = "billingwatch:probe"
POP = 1  # seconds that one pop blocks; a signal is heard between two, so that no job's id is thrown away
AGAIN = 0.5  # seconds between two questions whether Redis or Postgres is back
ANSWER = 10  # seconds that Redis may take for one
DEFAULT_TIMEOUT = 60  # seconds, of a job that names none


class Runner(SimpleWorker):
    """One queue, one process. BLMOVE, the move that survives a crash, is used with a single queue only."""

    log_result_lifespan = False
    max_connection_wait_time = RECONNECT

    def __init__(self, queue: Queue, process: Process, **options: Any) -> None:
        super().__init__(
            [queue],
            connection=queue.connection,
            serializer=MessagePack,
            job_class=Job,
            queue_class=Queue,
            maintenance_interval=MAINTENANCE,
            worker_ttl=WORKER_TTL,
            log_job_description=False,
            **options,
        )
        self.queue_class = _tell_what_is_taken(self)
        self.process = process
        self.in_hand = False  # whether a job was taken and may not be done, or may be on its way here

    @property
    def stopping(self) -> bool:
        return self._stop_requested or self.process.stopping.is_set()

    def _shutdown(self) -> None:
        self.process.stopping.set()
        # RQ's own stops at once unless a job has begun: one just taken would wait for maintenance for over a minute.
        if self.in_hand:
            self._stop_requested = True
        else:
            super()._shutdown()  # type: ignore[no-untyped-call]

    @property
    def connection_timeout(self) -> int:
        return ANSWER

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        # RQ tries to reach a silent Redis for ever, and beats before each try; to stop must not wait for that.
        if self.stopping and not self.in_hand:
            raise StopRequested
        super().heartbeat(timeout, pipeline)

    def get_heartbeat_ttl(self, job: RQJob, working_time: float = 0.0) -> int:
        return int(job.timeout or DEFAULT_TIMEOUT) + GRACE

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        self.in_hand = False
        if self.stopping:
            raise StopRequested
        self.wait_for_store()
        return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)

    def wait_for_store(self) -> None:
        """Take no job while Postgres is away: it would only fail, and RQ counts how often."""
        told = False
        while True:
            try:
                self.process.check()
            except StoreAwayError as error:
                if not told:
                    log.warning("store_away", error=str(error))
                    told = True
                self.heartbeat()
                time.sleep(AGAIN)
            else:
                if told:
                    log.info("store_back")
                return


def _tell_what_is_taken(runner: Runner) -> type[Queue]:
    """The queue class of this worker: RQ takes jobs by a class method, which knows no worker."""

    class Taken(Queue):
        @classmethod
        def lmove(cls, connection: Redis, queue_key: str, timeout: int | None) -> Any:
            runner.in_hand, taken = True, None
            try:
                for _ in range(timeout or 1):
                    if runner.stopping:
                        raise StopRequested
                    with suppress(DequeueTimeout):
                        taken = super().lmove(connection, queue_key, timeout and POP)
                        return taken
                raise DequeueTimeout(timeout, queue_key)
            finally:
                runner.in_hand = taken is not None

    return Taken


def wait_for_redis(process: Process) -> bool:
    """Wait until Redis takes a write, for else no worker can begin; False where the process is told to stop."""
    told = False
    while not process.stopping.is_set():
        try:
            process.redis.set(PROBE, 1, px=1000)
        except (RedisError, OSError) as error:
            if not told:
                log.warning("redis_away", error=type(error).__name__, hint="does it run at REDIS_URL, has it room?")
                told = True
            time.sleep(AGAIN)
        else:
            if told:
                log.info("redis_back")
            return True
    return False


def run(queue: Queue, process: Process, *, burst: bool = False) -> None:
    """Work until told to stop (SIGTERM and SIGINT finish the current job), or until Redis dies in mid-job."""
    Runner(queue, process).work(burst=burst, logging_level="WARNING")
