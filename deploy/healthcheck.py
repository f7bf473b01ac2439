"""Asks the service on this machine for /readyz: 0 if it is ready, 1 and the reasons if not.

Address and token are those of the environment: ``STREAM_CALIB__HTTP__HOST``, ``__PORT``,
``__TOKEN``.
"""

import http.client
import os
import sys

TIMEOUT_S = 4.0
PREFIX = "STREAM_CALIB__HTTP__"


def main() -> int:
    """Ask once; return the exit code."""
    host = os.environ.get(f"{PREFIX}HOST") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    token = os.environ.get(f"{PREFIX}TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        port = int(os.environ.get(f"{PREFIX}PORT") or 9464)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        connection.request("GET", "/readyz", headers=headers)
        answer = connection.getresponse()
        said = answer.read(4096).decode(errors="replace").strip()
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"no answer: {error}")
        return 1
    print(said)
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
