"""litellm as a client, in a process of its own: it leaves event loops open, and takes seconds to import.

    python -m tests.acceptance.litellm_caller '[{"model": ..., "api_base": ..., "api_key": ..., "messages": ...}, ...]'

It makes each call and prints what it was answered, all together as a list of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import openai

__all__ = ["main"]


def main(calls: list[dict[str, Any]]) -> None:
    """Make the calls, one after another."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    print(json.dumps([_answer(litellm, call) for call in calls]))


def _answer(litellm: Any, call: dict[str, Any]) -> dict[str, Any]:
    try:
        # With tools litellm looks for MCP's among them, by a package that it does not install.
        answer = litellm.completion(**call, _skip_mcp_handler=True)
        whole = litellm.stream_chunk_builder(list(answer)) if call.get("stream") else answer
    except openai.APIError as refused:  # which litellm's own are, too
        return {"status": getattr(refused, "status_code", None), "words": str(refused)}
    message = whole.choices[0].message
    called = [[one.function.name, json.loads(one.function.arguments)] for one in message.tool_calls or ()]
    return {"text": message.content, "called": called, "output_tokens": whole.usage.completion_tokens}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
