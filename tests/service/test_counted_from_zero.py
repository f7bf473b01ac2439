"""What is counted of viewers is at 0 before there is one, and how long kernels took is told."""

import re

import pytest

from stream_calib.adapters.embedded import EmbeddedLog
from stream_calib.config import parse_config
from stream_calib.service.topics import output_topics
from stream_calib.service.wiring import Service, embedded_service


def service(*, view: bool) -> Service:
    config = parse_config(
        {
            "universe": [{"name": "fx", "symbols": ["A", "B"]}],
            "input": {"topics": ["ticks"]},
            "http": {"port": 0, "view": view},
        }
    )
    log = EmbeddedLog()
    for name in ("ticks", *(spec.name for spec in output_topics(config))):
        log.create_topic(name)
    return embedded_service(config, log, lambda: True, compile_s=1.5)


@pytest.mark.parametrize("view", [True, False])
def test_refusals_and_frames_begin_at_zero(view: bool) -> None:
    text = service(view=view).observer.render()[0].decode()
    for name, labels in (
        ("http_refused_total", ("token", "foreign", "guessing", "crowd", "viewers")),
        ("view_frames_total", ("sent", "passed_over")),
    ):
        for label in labels:
            found = rf'^stream_calib_{name}{{\w+="{label}"}} 0\.0$'
            assert re.search(found, text, re.MULTILINE), (name, label)


def test_the_seconds_of_the_kernels_are_told() -> None:
    text = service(view=True).observer.render()[0].decode()
    assert "\nstream_calib_compile_seconds 1.5\n" in text


def test_what_others_own_is_known_and_read_again_once_it_is_ours() -> None:
    one = service(view=True)
    one.observer.owned("fx", "standby")
    assert one.observer.turns.others == {"fx"}
    one.observer.owned("fx", "owner")
    assert one.observer.turns.others == set()
    assert one.observer.turns.taken_over.get_nowait() == "fx"
