"""The text of a key: how it is made, told from any other text, and hashed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Callable

__all__ = ["HINT_CHARACTERS", "hash_of_key", "is_key", "new_key"]

_PREFIX = "bsr_"
_RANDOM_BYTES = 32
_RANDOM_CHARACTERS = 43
_CHECK_CHARACTERS = 8

HINT_CHARACTERS = 8
"""How much of a key's beginning is shown: enough to recognise it, far too little to guess the rest."""


def new_key(random_text: Callable[[int], str] = secrets.token_urlsafe) -> str:
    """`bsr_`, 43 random characters, and a checksum by which a mistyped key is told without asking the store."""
    body = random_text(_RANDOM_BYTES)
    return f"{_PREFIX}{body}{_check(body)}"


def is_key(text: str) -> bool:
    """Whether the text has a key's shape."""
    body, check = text[len(_PREFIX) : -_CHECK_CHARACTERS], text[-_CHECK_CHARACTERS:]
    return text.startswith(_PREFIX) and len(body) == _RANDOM_CHARACTERS and check == _check(body)


def hash_of_key(text: str, secret: bytes) -> str:
    """What is kept of a key, and looked up: its HMAC-SHA256, hexadecimal; the lookup tells nothing of the text."""
    return hmac.digest(secret, text.encode(), hashlib.sha256).hex()


def _check(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
