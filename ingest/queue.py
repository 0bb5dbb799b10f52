"""The receiver's side of Redis: write a batch as one RQ job, and watch whether Redis can take more."""

import asyncio
from collections.abc import Sequence

import structlog
from msgspec import Struct
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from billingwatch.queues import EVENTS, Queue, Received, enqueue_events

log = structlog.get_logger(__name__)

DEADLINE = 1.5  # seconds until a flush counts as failed; Stripe hears 503 within 2
HIGH_WATER = 0.70  # of maxmemory; a full Redis stops RQ's workers too and recovers no more by itself
WATCH_EVERY = 0.25  # seconds


class Health(Struct, frozen=True):
    """Whether the receiver can acknowledge now; `reason` is "" or why it cannot, `hint` what to do."""

    reason: str = ""
    hint: str = ""
    memory: float = 0.0  # used share of maxmemory, 0 where none is set
    depth: int = 0  # jobs waiting in the events queue


AWAY = Health("redis_away", "is Redis running at REDIS_URL?")
STARTING = Health("starting", "Redis was not asked yet")


class EventQueue:
    """Flushes batches to Redis and keeps `health` current. Every command has a deadline and none is retried here."""

    def __init__(self, redis_url: str) -> None:
        self._redis: AsyncRedis = AsyncRedis.from_url(
            redis_url,
            socket_connect_timeout=DEADLINE,
            socket_timeout=DEADLINE,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        # RQ builds the job; its commands go into the pipeline of redis.asyncio, which buffers them in the same way.
        self._queue = Queue(EVENTS, Redis.from_url(redis_url))
        self._queue.redis_server_version = (7, 2, 0)  # any from 6.2 on; asking would block the event loop
        self.health = STARTING

    async def flush(self, batch: Sequence[Received]) -> None:
        """Make the batch durable as one job. Raises what redis-py raises, or TimeoutError."""
        async with asyncio.timeout(DEADLINE), self._redis.pipeline(transaction=True) as pipe:
            enqueue_events(self._queue, batch, pipe)
            await pipe.execute()

    async def watch(self) -> None:
        """Look at Redis again and again until cancelled."""
        while True:
            before = self.health
            self.health = await self.look()
            if self.health.reason != before.reason:
                if self.health.reason:
                    log.error("cannot_acknowledge", reason=self.health.reason, hint=self.health.hint)
                else:
                    log.info("can_acknowledge")
            await asyncio.sleep(WATCH_EVERY)

    async def look(self) -> Health:
        try:
            async with asyncio.timeout(DEADLINE):
                memory = await self._redis.info("memory")
                depth = await self._redis.llen(self._queue.key)
        except (RedisError, OSError, TimeoutError):
            return AWAY
        limit = int(memory.get("maxmemory", 0))
        share = int(memory["used_memory"]) / limit if limit else 0.0
        if share >= HIGH_WATER:
            hint = "workers must drain the queue, or maxmemory must grow"
            return Health("redis_above_high_water", hint, memory=share, depth=depth)
        return Health(memory=share, depth=depth)

    async def close(self) -> None:
        await self._redis.aclose()


def durability_problems(redis: Redis) -> list[str]:
    """What about this Redis could lose an acknowledged event; [] where nothing could. Raises RedisError."""
    problems = []
    if redis.info("persistence").get("aof_enabled") != 1:
        problems.append("appendonly is off: a crash of Redis loses acknowledged events; set appendonly yes")
    policy = redis.info("memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(f"maxmemory-policy is {policy}: a full Redis evicts queued events; set noeviction")
    return problems
