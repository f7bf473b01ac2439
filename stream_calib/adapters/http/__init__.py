"""The HTTP face of the service: metrics and health, and the live view."""

from stream_calib.adapters.http.live import LiveView
from stream_calib.adapters.http.server import Health, HttpServer

__all__ = ["Health", "HttpServer", "LiveView"]
