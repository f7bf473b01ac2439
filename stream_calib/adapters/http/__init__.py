"""The HTTP face of the service: metrics and health, and the live view."""

from stream_calib.adapters.http.live import LiveView
from stream_calib.adapters.http.server import Ask, Health, HttpServer
from stream_calib.adapters.http.thread import HttpThread

__all__ = ["Ask", "Health", "HttpServer", "HttpThread", "LiveView"]
