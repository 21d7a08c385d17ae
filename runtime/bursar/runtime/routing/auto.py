"""The tier of a call of `auto`: the classifier's, or the incumbent where it has no evidence."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bursar.runtime.routing.evidence import text_of
from bursar.runtime.routing.labels import Record, append

if TYPE_CHECKING:
    from datetime import datetime

    from bursar.runtime.ask import Ask
    from bursar.runtime.config_routing import AutoConfig
    from bursar.runtime.context import RunContext
    from bursar.runtime.models.provider import Message
    from bursar.runtime.routing.classifier import Classifier

__all__ = ["AutoTier"]

_log = logging.getLogger("bursar.runtime")


class AutoTier:
    """Chooses as the section `auto` says; the classifier is loaded once."""

    def __init__(self, section: AutoConfig, tiers: Collection[str], base: Path) -> None:
        """`tiers` are all there are; a relative path of the section begins at `base`."""
        self._section = section
        self._tiers = tiers
        self._base = base
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Load the classifier; raises ConfigError where it cannot be."""
        with self._lock:
            self._classifier  # noqa: B018 - it is kept

    async def log(self, run: RunContext, ask: Ask, at: datetime) -> None:
        """Keep a call's text to be labelled, where the section names a file; one that cannot be written is let be."""
        if self._section.log is None or not (text := text_of(ask.messages)):
            return
        record = Record(text=text, at=at, run_id=run.scope.run_id, node=ask.node)
        try:
            await asyncio.to_thread(append, self._base / self._section.log, record)
        except OSError as error:
            _log.warning("auto.log cannot be written: %s", error)

    def __call__(self, messages: Sequence[Message]) -> tuple[str, str]:
        """The tier, and why."""
        incumbent = self._section.incumbent
        if self._classifier is None:
            return incumbent, "auto: no classifier, the incumbent"
        try:
            verdict = self._classifier.classify(messages)
        except Exception as error:  # code of others, without which the call can be answered all the same
            _log.warning("the classifier of auto failed", exc_info=error)
            return incumbent, f"auto: the incumbent, for the classifier failed ({type(error).__name__})"
        if verdict.tier is not None and verdict.tier not in self._tiers:
            return incumbent, f"auto: the incumbent, for the classifier's {verdict.tier} is none of the tiers"
        return verdict.tier or incumbent, verdict.reason

    @cached_property
    def _classifier(self) -> Classifier | None:
        from bursar.runtime.routing.classifier import load_classifier

        reference = self._section.classifier
        return None if reference is None else load_classifier(reference, base=self._base)
