"""HTTP as uvicorn speaks it by httptools, with a bound on a request's head, for which it has none."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_BYTES_MAX", "BoundedHttp"]

HEAD_BYTES_MAX = 65_536
"""How long a request line and its headers may be; a caller without a key could fill the memory with them."""


class BoundedHttp(HttpToolsProtocol):
    """One connection, which is closed where a head does not end."""

    _head_bytes: int | None = 0
    """How much came of a head that has not ended; None after its end."""

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        was_open = self._head_bytes is not None
        super().data_received(data)
        if was_open and self._head_bytes is not None:  # a head that only begins in this is as short as what came
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request's head."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End it."""
        self._head_bytes = None
        super().on_headers_complete()
