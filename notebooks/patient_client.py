"""Keep a notebook run from standing still for half an hour: importing this module is all it takes.

While a cell runs, nbclient waits for the kernel's reply on a socket. If the cell shows a widget, nbclient also *sends* on
that socket, and a send can swallow the signal that a reply has come in (https://github.com/jupyter/nbclient/issues/312).
The reply lies there, both sides sleep, and only the time-out of the cell wakes them: 1800 s in our runs. So we wait a
second at a time, and look each time whether something has come in.
"""

from __future__ import annotations

import time
from queue import Empty

from jupyter_client.channels import AsyncZMQSocketChannel

SECONDS = 1.0


def look_often(channel_class: type) -> None:
    """Let ``get_msg`` of `channel_class` wait in steps of `SECONDS`; what it returns and raises stays the same."""
    wait = channel_class.get_msg

    async def get_msg(self, timeout: float | None = None) -> dict:
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return await wait(self, max(0.0, min(SECONDS, end - time.monotonic())))
            except Empty:
                if time.monotonic() >= end:
                    raise

    channel_class.get_msg = get_msg


look_often(AsyncZMQSocketChannel)
