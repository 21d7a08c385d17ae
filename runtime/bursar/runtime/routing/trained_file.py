"""A trained classifier as a file of plain arrays and JSON: reading one runs nothing of what it holds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bursar.budget.errors import ConfigError, UsageError
from bursar.runtime.routing.certify import Trial
from bursar.runtime.routing.rule import Rule
from bursar.runtime.routing.trained import TrainedClassifier, Vocabulary

__all__ = ["read_trained", "signed", "write_trained"]

FILE_BYTES_MAX = 64 * 2**20
UNPACKED_BYTES_MAX = 256 * 2**20

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
_ARRAYS = {"keys": np.uint32, "idf": np.float32, "weights": np.float32, "bias": np.float64, "seen": np.uint64}

Share = Annotated[float, Field(ge=0, le=1)]
Arrays = Mapping[str, NDArray[Any]]


class _Trial(BaseModel):
    model_config = _STRICT

    threshold: Share
    routed: Annotated[int, Field(ge=1)]
    wrong: Annotated[int, Field(ge=0)]
    bound: Share


class _Meta(BaseModel):
    """What is no array."""

    model_config = _STRICT

    format: Literal["bursar-route-1"] = "bursar-route-1"
    tiers: Annotated[list[str], Field(min_length=2)]
    incumbent: str
    known_min: Share
    down: _Trial | None
    up: _Trial | None


def signed(classifier: TrainedClassifier) -> TrainedClassifier:
    """The classifier with the digest of all that it holds."""
    return replace(classifier, digest=_digest(_meta(classifier), _arrays(classifier)))


def write_trained(path: Path, classifier: TrainedClassifier) -> None:
    """Write the file, whole or not at all; the same classifier gives the same bytes. Raises UsageError."""
    text = json.dumps({**_meta(classifier).model_dump(), "digest": classifier.digest}, sort_keys=True)
    arrays = {"meta": np.frombuffer(text.encode(), np.uint8), **_arrays(classifier)}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.getvalue())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror}", next_step="--out FILE") from None


def read_trained(path: Path) -> TrainedClassifier:
    """The classifier of a file. Raises ConfigError for any file that `write_trained` has not written."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", file=path, next_step="bursar route train LABELS --out FILE"
        ) from None
    try:
        return _checked(*_unpacked(content))
    except ValidationError as error:
        [first, *_] = error.errors()
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except Exception as error:  # of a foreign file, zipfile, zlib, numpy and json raise a dozen kinds
        why = str(error) or type(error).__name__
    raise ConfigError(
        f"is no trained classifier, or a damaged one: {why}",
        file=path,
        next_step="train it again: bursar route train LABELS --out FILE",
    )


def _unpacked(content: bytes) -> tuple[dict[str, Any], Arrays]:
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"more than {FILE_BYTES_MAX // 2**20} MiB")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = {f"{name}.npy" for name in ("meta", *_ARRAYS)}
        if len(archive.namelist()) != len(names) or set(archive.namelist()) != names:
            raise ValueError(f"expected exactly {', '.join(sorted(names))}")
        if sum(member.file_size for member in archive.infolist()) > UNPACKED_BYTES_MAX:
            raise ValueError(f"unpacks to more than {UNPACKED_BYTES_MAX // 2**20} MiB")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        meta = json.loads(arrays["meta"].tobytes())
        return meta, {name: arrays[name] for name in _ARRAYS}


def _checked(written: dict[str, Any], arrays: Arrays) -> TrainedClassifier:
    digest = written.pop("digest")
    meta = _Meta.model_validate(written)
    if digest != _digest(meta, arrays):
        raise ValueError("its digest is another")
    if meta.incumbent not in meta.tiers or len(set(meta.tiers)) < len(meta.tiers):
        raise ValueError("expected tiers with different names, and the incumbent among them")
    _check_arrays(arrays, len(meta.tiers))
    return TrainedClassifier(
        tiers=tuple(meta.tiers),
        incumbent=meta.incumbent,
        vocabulary=Vocabulary(keys=arrays["keys"], idf=arrays["idf"]),
        weights=arrays["weights"],
        bias=arrays["bias"],
        known_min=meta.known_min,
        down=Rule.down(meta.tiers, meta.incumbent, _trial(meta.down)),
        up=Rule.up(meta.tiers, meta.incumbent, _trial(meta.up)),
        seen=arrays["seen"],
        digest=digest,
    )


def _check_arrays(arrays: Arrays, tiers: int) -> None:
    keys, idf, weights, bias = (arrays[name] for name in ("keys", "idf", "weights", "bias"))
    for name, kind in _ARRAYS.items():
        if arrays[name].dtype != kind:
            raise ValueError(f"{name}: expected {np.dtype(kind)}, not {arrays[name].dtype}")
    if not (idf.shape == keys.shape == (len(keys),) and weights.shape == (len(keys), tiers) and bias.shape == (tiers,)):
        raise ValueError("its arrays do not fit together")
    if not (np.all(keys[:-1] < keys[1:]) and np.isfinite(idf).all() and np.isfinite(weights).all()):
        raise ValueError("its arrays hold what training never writes")
    if np.isnan(bias).any() or bias.max() == np.inf or not np.isfinite(bias).any():
        raise ValueError("its bias holds what training never writes")


def _trial(written: _Trial | None) -> Trial | None:
    return Trial(**written.model_dump()) if written else None


def _meta(classifier: TrainedClassifier) -> _Meta:
    down, up = (_Trial(**asdict(rule.trial)) if rule.trial else None for rule in (classifier.down, classifier.up))
    return _Meta(
        tiers=list(classifier.tiers), incumbent=classifier.incumbent, known_min=classifier.known_min, down=down, up=up
    )


def _arrays(classifier: TrainedClassifier) -> Arrays:
    words = classifier.vocabulary
    values = words.keys, words.idf, classifier.weights, classifier.bias, classifier.seen
    return dict(zip(_ARRAYS, values, strict=True))


def _digest(meta: _Meta, arrays: Arrays) -> str:
    hashed = hashlib.sha256(json.dumps(meta.model_dump(), sort_keys=True).encode())
    for name in _ARRAYS:
        hashed.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        hashed.update(arrays[name].tobytes())
    return hashed.hexdigest()[:16]
