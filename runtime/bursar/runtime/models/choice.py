"""Which models of a tier may take a call, in order, and why: a pure function of the tier and the call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bursar.runtime.models.catalog import Model

__all__ = ["choose"]


def choose(tier: str, models: Sequence[Model], input_tokens: int, output_tokens: int) -> Iterator[tuple[Model, str]]:
    """The tier's models whose context window can hold the call, in the tier's order, each with its reason.

    `output_tokens` is the least output that is of use. Where no window is large enough nothing is yielded.
    """
    passed: list[str] = []
    for model in models:
        if model.context_window is not None and input_tokens + output_tokens > model.context_window:
            passed.append(f"{model.name} holds {model.context_window} tokens")
            continue
        place = "first of" if not passed else f"after {', '.join(passed)}, next of"
        yield model, f"{place} tier {tier}"
        passed.append(model.name)
