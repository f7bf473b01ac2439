"""Who may come in: tokens, sessions of browsers, and from which pages."""

import hmac
import re
import secrets
from urllib.parse import urlsplit

from aiohttp import web

COOKIE = "stream_calib_session"
LOOPBACK = re.compile(r"(localhost|\[::1\]|127(\.\d{1,3}){3})(:\d+)?", re.IGNORECASE)


class Admission:
    """Judges requests by the token that is set, or lets everybody in without one.

    A browser that has given the token gets a cookie, which is no token: it is made anew at each
    start, is sent to this server alone, and lets look only.
    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()
        self._session = secrets.token_urlsafe(32)

    @property
    def is_open(self) -> bool:
        """Whether no token is set."""
        return self._token is None

    @property
    def foreign(self) -> str:
        """What is answered to a request that is not of the same site."""
        if self.is_open:
            return "asked for under a foreign name or by another site; a proxy needs http.token set"
        return "asked for by another site, or a proxy does not pass on the Host it was asked for"

    def bearer(self, request: web.BaseRequest) -> bool:
        """Tell whether the request carries the token, or needs none."""
        if self._token is None:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return self.knows(given.strip()) and scheme.lower() == "bearer"

    def looks(self, request: web.BaseRequest) -> bool:
        """Tell whether the request may look: by the token, or by a browser's session."""
        if self.bearer(request):
            return True
        given = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self._session.encode())

    def knows(self, given: str) -> bool:
        """Tell whether this is the token."""
        secret = given.encode(errors="surrogateescape")
        return self._token is not None and hmac.compare_digest(secret, self._token)

    def greet(self, request: web.BaseRequest, response: web.Response) -> None:
        """Give a browser its session: for this server, out of reach of scripts, until it ends.

        A proxy that says it has TLS gets one that the browser sends over TLS alone.
        """
        secure = request.headers.get("X-Forwarded-Proto", "").lower() == "https"
        response.set_cookie(
            COOKIE, self._session, httponly=True, samesite="Strict", path="/", secure=secure
        )

    def same_site(self, request: web.BaseRequest) -> bool:
        """Tell whether no page of somebody else's is behind the request.

        Without a token the address has to be a loopback one too, or a name that somebody made
        point here would do.
        """
        host = request.headers.get("Host", "")
        if self.is_open and not LOOPBACK.fullmatch(host):
            return False
        origin = request.headers.get("Origin")
        try:
            return origin is None or urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:  # no address at all
            return False
