"""What the receiver counts about itself, for Prometheus."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ingest.queue import HIGH_WATER, Health

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)


class Metrics:
    """Counters by reason. With several receiver processes they share PROMETHEUS_MULTIPROC_DIR."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._received = Counter("ingest_received", "Events acknowledged: durable in Redis", registry=self._registry)
        self._rejected = Counter("ingest_rejected", "Deliveries refused", ["reason"], registry=self._registry)
        self._seconds = Histogram(
            "ingest_seconds", "From the request to its answer", ["status"], buckets=_SECONDS, registry=self._registry
        )
        self._waiting = _gauge("ingest_waiting_events", "Events waiting for a flush", self._registry)
        self._depth = _gauge("queue_depth_jobs", "Jobs waiting in the events queue", self._registry)
        self._memory = _gauge(
            "redis_memory_share", f"Used share of maxmemory; refused from {HIGH_WATER}", self._registry
        )
        self._ready = _gauge("ingest_ready", "1 when events can be acknowledged", self._registry)
        self._by_status = {status: self._seconds.labels(str(status)) for status in (200, 400, 404, 405, 413, 503)}

    def answered(self, status: int, reason: str, seconds: float) -> None:
        self._by_status[status].observe(seconds)
        if status == 200:
            self._received.inc()
        else:
            self._rejected.labels(reason).inc()

    def render(self, health: Health, waiting: int) -> bytes:
        """The exposition text, of all receiver processes where there are several."""
        self._waiting.set(waiting)
        self._depth.set(health.depth)
        self._memory.set(health.memory)
        self._ready.set(not health.reason)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, registry=registry, multiprocess_mode="mostrecent")
