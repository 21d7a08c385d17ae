"""The prices that a configuration declares: published ones, the time of GPUs, or free."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag

from bursar.runtime.config_fields import SECTION, Count, PositiveCount, TokensPerSecond, Usd, UsdPerMtok
from bursar.runtime.config_problems import Problem, Problems

__all__ = ["SIM_PRICE", "DeclaredPrice", "GpuPrice", "LongContextPrice", "ModelPrice", "TierPrice"]


class RatesPrice(BaseModel):
    """Prices in USD per million tokens, as the provider publishes them."""

    model_config = SECTION

    input_usd_per_mtok: UsdPerMtok
    """Tokens that the model reads."""

    output_usd_per_mtok: UsdPerMtok
    """Tokens that the model writes."""

    cache_read_usd_per_mtok: UsdPerMtok | None = None
    """Input tokens that came from the provider's prompt cache; without it they cost what input costs."""

    cache_write_usd_per_mtok: UsdPerMtok | None = None
    """Input tokens that were written to the provider's prompt cache; without it they cost what input costs."""

    reasoning_usd_per_mtok: UsdPerMtok | None = None
    """Output tokens that the model thought with; without it they cost what output costs."""

    cache_write_1h_usd_per_mtok: UsdPerMtok | None = None
    """Input tokens that were written to be kept for an hour; without it they cost what any write costs."""

    input_image_usd_per_mtok: UsdPerMtok | None = None
    """Input tokens of images; without it they cost what input costs."""

    input_audio_usd_per_mtok: UsdPerMtok | None = None
    """Input tokens of audio; without it they cost what input costs."""

    cache_read_audio_usd_per_mtok: UsdPerMtok | None = None
    """Tokens of audio that came from the cache; without it they cost what audio costs."""

    output_image_usd_per_mtok: UsdPerMtok | None = None
    """Output tokens of images; without it they cost what output costs."""

    output_audio_usd_per_mtok: UsdPerMtok | None = None
    """Output tokens of audio; without it they cost what output costs."""


class LongContextPrice(RatesPrice):
    """The prices of all tokens of a call whose input is longer than a threshold."""

    above_input_tokens: Count
    """The largest input that still has the prices of the step before."""


def _each_once(steps: list[LongContextPrice]) -> list[LongContextPrice]:
    first: dict[int, int] = {}
    for index, step in enumerate(steps):
        if first.setdefault(step.above_input_tokens, index) != index:
            text = f"the step above {step.above_input_tokens} is already [{first[step.above_input_tokens]}]"
            raise Problems([Problem(path=(index, "above_input_tokens"), text=text)])
    return steps


class TierPrice(RatesPrice):
    """The prices of one service tier."""

    long_context: Annotated[list[LongContextPrice], AfterValidator(_each_once)] = []
    """The prices of longer inputs, step by step."""


class ModelPrice(TierPrice):
    """Prices in USD per million tokens, as the provider publishes them."""

    request_usd: Usd | None = None
    """What each call costs beside its tokens."""

    batch: TierPrice | None = None
    """The prices of calls that were answered as part of a batch; without it the standard ones."""

    flex: TierPrice | None = None
    """The prices of calls that were answered when there was room; without it the standard ones."""

    priority: TierPrice | None = None
    """The prices of calls that were answered before others; without it the standard ones."""


class GpuPrice(BaseModel):
    """A price of GPU time, spread over the tokens that the server reads and writes in it when it is busy."""

    model_config = SECTION

    gpu_usd_per_hour: Usd
    """What one GPU costs for an hour."""

    gpus: PositiveCount = 1
    """How many GPUs serve the model."""

    input_tokens_per_second: TokensPerSecond
    """How many input tokens all of them together read in a second, measured."""

    output_tokens_per_second: TokensPerSecond
    """How many output tokens all of them together write in a second, measured."""


SIM_PRICE = ModelPrice(input_usd_per_mtok=Decimal("0.40"), output_usd_per_mtok=Decimal("1.60"))
"""What a `sim` model costs unless its section says otherwise: the simulator is metered like any other model."""


def _price_kind(value: object) -> str | None:
    if value == "free":
        return "[free]"
    if isinstance(value, GpuPrice) or (isinstance(value, Mapping) and "gpu_usd_per_hour" in value):
        return "[gpu]"
    return "[prices]" if isinstance(value, (ModelPrice, Mapping)) else None


DeclaredPrice = Annotated[
    Annotated[Literal["free"], Tag("[free]")]
    | Annotated[ModelPrice, Tag("[prices]")]
    | Annotated[GpuPrice, Tag("[gpu]")],
    Discriminator(
        _price_kind,
        custom_error_type="price",
        custom_error_message="expected free, a mapping with input_usd_per_mtok and output_usd_per_mtok, or one with "
        "gpu_usd_per_hour",
    ),
    Field(),
]
