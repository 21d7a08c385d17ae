"""What LangGraph's DeltaChannels are rebuilt from: their last snapshot, and what was written to them since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite

from bursar.memory.strict import StrictSerializer
from bursar.memory.threads import Place, Rows

__all__ = ["delta_history"]


def delta_history(
    rows: Rows | None, place: Place, channels: Sequence[str], serde: StrictSerializer
) -> Mapping[str, DeltaChannelHistory]:
    """Of each channel, its nearest value before the checkpoint at `place`, and the writes after it, oldest first."""
    written: dict[str, list[PendingWrite]] = {name: [] for name in channels}
    seeds: dict[str, object] = {}
    target = rows and (place.id or rows.newest(place.ns))
    row = rows.row(place.ns, target) if rows and target else None
    walked = {target}
    while rows and row and row.parent and row.parent not in walked and len(seeds) < len(written):
        walked.add(at := row.parent)
        if (row := rows.row(place.ns, at)) is None:
            break
        for one in reversed(rows.writes(place.ns, at)):
            if one.channel in written and one.channel not in seeds:
                written[one.channel].append((one.task, one.channel, serde.loads_typed(rows.content(one.value))))
        for name in written.keys() & row.values.keys() - seeds.keys():
            seeds[name] = serde.loads_typed(rows.content(row.values[name][1]))
    return {
        name: {"writes": found[::-1], "seed": seeds[name]} if name in seeds else {"writes": found[::-1]}
        for name, found in written.items()
    }
