"""Fits in a thread of this process: for replay and notebooks, where nothing has to be on time."""

import asyncio

from stream_calib.adapters.workers.answering import CALIBRATE, answered, load
from stream_calib.values import Fit, FitFailure, FitRequest
from stream_calib.wire.calls import (
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    seal,
)


class InlineFitter:
    """Computes fits in a thread; implements ``ports.Fitter``.

    A thread cannot be ended: there is no limit of time or memory, and what is cancelled or
    closed is computed to its end and then dropped. Requests and answers pass through the same
    bytes as those of ``ProcessFitter``, so that both give the same fits.

    Parameters
    ----------
    function
        ``module:name`` of what turns a request into a fit or a failure.
    """

    def __init__(self, function: str = CALIBRATE) -> None:
        self._function = function
        self._closed = asyncio.Event()
        self._turn = asyncio.Lock()

    async def fit(self, request: FitRequest) -> Fit | FitFailure:
        """Return what came of a request."""
        async with self._turn:
            if not self._closed.is_set():
                closing = asyncio.create_task(self._closed.wait())
                computing = asyncio.create_task(asyncio.to_thread(self._compute, request))
                try:
                    await asyncio.wait({closing, computing}, return_when=asyncio.FIRST_COMPLETED)
                    if computing.done():
                        return computing.result()
                finally:
                    closing.cancel()
                    computing.cancel()
            return FitFailure(
                request.model, request.number, "cancelled", "The fit was cancelled: it is closing."
            )

    async def close(self) -> None:
        """Answer what is under way as cancelled."""
        self._closed.set()

    def _compute(self, request: FitRequest) -> Fit | FitFailure:
        own = decode_request(seal(encode_request(request)))
        answer = answered(load(self._function), own)
        return decode_answer(seal(encode_answer(answer)))
