"""Tells systemd, or whoever else named a socket to be told on, how the service is."""

import contextlib
import os
import socket
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"
EXTENSION_S = 30  # a start that still gets on is given so much more time, again and again


class Supervisor:
    """Sends what sd_notify(3) describes: a datagram for each thing there is to say.

    Telling never waits and never fails: a supervisor that does not read loses a word, and what
    is as important as being ready is said again with the next sign of life.

    Parameters
    ----------
    address
        Path of the socket, or its name in the abstract namespace after an ``@``; None: nobody
        wants to know.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address and ("\0" + address[1:] if address[0] == "@" else address)
        self._is_ready = False
        self._unheard: str | None = None
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(0.0)

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Supervisor":
        """Return the one that the environment names, if any."""
        return cls(environment.get(VARIABLE))

    def ready(self) -> None:
        """Say that the start is over."""
        self._is_ready = True
        self._unheard = "READY=1\nSTATUS=running"
        self._say_unheard()

    def alive(self) -> None:
        """Say that the process still gets on; while it starts, that this may take longer."""
        self._say_unheard()
        self._send("WATCHDOG=1" if self._is_ready else f"EXTEND_TIMEOUT_USEC={EXTENSION_S}000000")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._unheard = "STOPPING=1\nSTATUS=committing what was read"
        self._say_unheard()

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say_unheard(self) -> None:
        text = self._unheard  # which another thread may change meanwhile
        if text is not None and self._send(text) and self._unheard is text:
            self._unheard = None

    def _send(self, text: str) -> bool:
        sending = self._socket  # which another thread may close meanwhile
        if sending is None or self._address is None:
            return True
        with contextlib.suppress(OSError):
            sending.sendto(text.encode(), self._address)
            return True
        return False
