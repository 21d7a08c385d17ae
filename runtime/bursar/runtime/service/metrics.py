"""The gateway's metrics, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bursar.budget.money import NANO
from bursar.runtime.models.health import Cooling
from bursar.runtime.service.caller import Caller
from bursar.runtime.service.calls import Answered

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """What one process of the gateway has done since it started."""

    def __init__(self, cooling: Callable[[], Sequence[Cooling]] = tuple) -> None:
        """`cooling` says which models are passed by."""
        self._registry = CollectorRegistry()
        self._cooling = cooling
        self._requests = Counter(
            "bursar_requests", "Requests by path and HTTP status.", ["path", "status"], registry=self._registry
        )
        self._calls = Counter(
            "bursar_calls",
            "Answers by model, tier and whether they were replayed.",
            ["model", "tier", "replayed"],
            registry=self._registry,
        )
        self._spent = Counter("bursar_spent_usd", "What was posted, by tenant.", ["tenant"], registry=self._registry)
        self._refusals = Counter("bursar_refusals", "Problems told, by code.", ["code"], registry=self._registry)
        self._latency = Histogram(
            "bursar_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._streams = Gauge("bursar_open_streams", "Streams that are being answered.", registry=self._registry)
        self._cool = Gauge(
            "bursar_model_cooling",
            "1 for a model that is passed by, with why.",
            ["model", "cause"],
            registry=self._registry,
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request has ended."""
        self._requests.labels(path, status).inc()
        self._latency.labels(path).observe(seconds)

    def answered(self, caller: Caller, answered: Answered) -> None:
        """A call was answered and posted."""
        sent = answered.sent
        self._calls.labels(sent.model, sent.tier, "yes" if answered.replayed else "no").inc()
        self._spent.labels(caller.scope.tenant).inc(answered.posted.nanousd / NANO)

    def refusal(self, code: str) -> None:
        """A problem was told."""
        self._refusals.labels(code).inc()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """A stream is open meanwhile."""
        self._streams.inc()
        try:
            yield
        finally:
            self._streams.dec()

    def text(self) -> bytes:
        """All of it, in Prometheus's format."""
        self._cool.clear()
        for one in self._cooling():
            self._cool.labels(one.model, one.cause).set(1)
        return generate_latest(self._registry)
