"""The price rows of what `bursar.yaml` declares."""

from __future__ import annotations

import hashlib
import json
from datetime import date

from bursar.budget.pricing.gpu import GpuTime
from bursar.budget.pricing.prices import Price
from bursar.runtime.config import GpuPrice, ModelPrice

__all__ = ["declared_price"]


def declared_price(name: str, section: ModelPrice | GpuPrice | str) -> Price:
    """The price of a section of `bursar.yaml`.

    Undated: the id names the content, so that a changed price is another row and old postings keep theirs.
    """
    if isinstance(section, str):
        return Price.free(id=f"config:{name}@free", source="bursar.yaml", effective=date.min)
    declared = section.model_dump(mode="json", exclude_none=True)
    digest = hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:8]
    id = f"config:{name}@{digest}"
    if isinstance(section, GpuPrice):
        gpus, throughput = section.gpu_usd_per_hour, (section.input_tokens_per_second, section.output_tokens_per_second)
        return GpuTime(usd_per_hour=gpus, gpus=section.gpus).at_throughput(*throughput, id=id, effective=date.min)
    return Price.from_record({**declared, "id": id, "source": "bursar.yaml", "effective": date.min.isoformat()})
