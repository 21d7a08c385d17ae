"""A real vLLM server as a process group of its own, and what it says that it has done."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import REPOSITORY

__all__ = ["MODELS", "Served", "VLLMServer"]

ENVIRONMENT = REPOSITORY / ".venv-vllm"
MODELS = ENVIRONMENT / "models"
START_TIMEOUT_S = 180
KILL_TIMEOUT_S = 30

COMMAND = (
    *(str(ENVIRONMENT / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"),
    *("--host", "127.0.0.1", "--model", str(MODELS / "tiny")),
    *("--served-model-name", "tiny", "--max-model-len", "1024", "--block-size", "32", "--enforce-eager"),
    *("--dtype", "float32"),  # in bfloat16, with AMX, vLLM 0.32 dies of SIGILL where the first prompt is very short
    *("--enable-lora", "--max-loras", "2", "--max-lora-rank", "16"),
    *("--override-generation-config", '{"temperature": 0}'),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    # A tiny model would write line breaks where JSON allows any number of them.
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
    *("--enable-prompt-tokens-details", "--scheduling-policy", "priority", "--max-num-queued-reqs", "4"),
)

SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "2",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True, slots=True)
class Served:
    """What a server has done so far, in tokens, as it counts them itself."""

    computed: int
    """Input that was not in its cache."""

    cached: int
    """Input that came from its cache."""

    written: int

    def __sub__(self, before: Served) -> Served:
        return Served(self.computed - before.computed, self.cached - before.cached, self.written - before.written)


class VLLMServer:
    """A server of the tiny model on a free port of 127.0.0.1, up while it is entered."""

    def __init__(self, log: Path) -> None:
        """`log` is the file that it writes to."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._log = log
        self.api_base = f"http://127.0.0.1:{self._port}/v1"
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [*COMMAND, "--port", str(self._port)],
                env=os.environ | SETTINGS,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._client.close()

    def kill(self) -> None:
        """SIGKILL to all of its processes, and wait; nothing happens to one that is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(KILL_TIMEOUT_S)

    def post(self, path: str, **body: Any) -> httpx.Response:
        """The answer to a request that Bursar knows nothing of."""
        return self._client.post(path, json=body)

    def served(self) -> Served:
        """What it has done since it was started."""
        metrics = self._client.get("/metrics").text
        sums = {
            (sample.name, sample.labels.get("source")): int(sample.value)
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels.get("engine") == "0"
        }
        by_source = "vllm:prompt_tokens_by_source_total"
        return Served(
            sums[by_source, "local_compute"],
            sums[by_source, "local_cache_hit"],
            sums["vllm:generation_tokens_total", None],
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                if self._client.get("/health").is_success:
                    return
            time.sleep(0.25)
        raise AssertionError(f"vLLM does not answer:\n{self._log.read_text()[-4000:]}")
