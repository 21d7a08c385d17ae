"""A real vLLM server as a process group of its own: started, waited for, killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import REPOSITORY

__all__ = ["MODELS", "VLLMServer"]

ENVIRONMENT = REPOSITORY / ".venv-vllm"
MODELS = ENVIRONMENT / "models"
START_TIMEOUT_S = 180
KILL_TIMEOUT_S = 30

FLAGS = (
    *("--served-model-name", "tiny", "--max-model-len", "1024", "--block-size", "32", "--enforce-eager"),
    *("--enable-lora", "--max-loras", "2", "--max-lora-rank", "16"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--structured-outputs-config", '{"disable_any_whitespace": true}'),  # or a tiny model writes nothing else
    *("--enable-prompt-tokens-details", "--scheduling-policy", "priority"),
)

SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "2",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class VLLMServer:
    """A server of the tiny model on a free port of 127.0.0.1, which may still be starting."""

    def __init__(self, log: Path, *flags: str) -> None:
        """`flags` come beside those that every server here is started with."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._log = log
        self.url = f"http://127.0.0.1:{port}"
        self.api_base = f"{self.url}/v1"
        command = [ENVIRONMENT / "bin" / "python", "-m", "vllm.entrypoints.openai.api_server", "--model", MODELS / "tiny"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*map(str, command), "--host", "127.0.0.1", "--port", str(port), *FLAGS, *flags],
                env=os.environ | SETTINGS,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return once it answers; raises AssertionError with the end of its log where it does not in time."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False).is_success:
                    return
            time.sleep(0.25)
        raise AssertionError(f"vLLM did not start within {START_TIMEOUT_S} s:\n{self._log.read_text()[-4000:]}")

    def post(self, path: str, **body: Any) -> httpx.Response:
        """The answer to a request that Bursar knows nothing of."""
        return httpx.post(f"{self.url}{path}", json=body, timeout=60, trust_env=False)

    def counters(self) -> dict[str, int]:
        """The server's own count of all that it has read, taken from its cache, and written so far, in tokens."""
        text = httpx.get(f"{self.url}/metrics", trust_env=False).text
        ...

    def kill(self) -> None:
        """SIGKILL to all of its processes, and wait until none is left; nothing happens to one that is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(KILL_TIMEOUT_S)
