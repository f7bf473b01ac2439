"""What holds for every place where fits are computed; then what a process of its own adds."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import structlog

from stream_calib.adapters.workers.process import ProcessFitter
from stream_calib.ports import Fitter
from stream_calib.values import F64, Fit, FitFailure, FitRequest
from tests.real_parts import ROOT

TIMEOUT_S = 60.0  # far above what a start takes on a busy machine
MEMORY_BYTES = 2 * 10**9
SOON_S = 120.0  # the same, for things that are not measured

Make = Callable[[str], Fitter]


def make_process(name: str, **options: float) -> ProcessFitter:
    limits = {"timeout_s": TIMEOUT_S, "memory_bytes": MEMORY_BYTES} | options
    return ProcessFitter(function=f"tests.contract.fits:{name}", **limits)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(fitter: ProcessFitter) -> AsyncIterator[ProcessFitter]:
    try:
        yield fitter
    finally:
        await fitter.close()


def a_request(
    number: int = 1, arrays: dict[str, F64] | None = None, **settings: object
) -> FitRequest:
    return FitRequest("dcc", number, "first", 123, settings, {} if arrays is None else arrays)


def failed(answer: Fit | FitFailure, code: str) -> str:
    """Check a failure, and return its sentence."""
    assert isinstance(answer, FitFailure), answer
    assert (answer.code, answer.model) == (code, "dcc"), answer
    assert re.fullmatch(r"[A-Z][^\n]{0,400}\.", answer.reason), answer.reason
    assert "Traceback" not in answer.reason
    return answer.reason


def is_there(pid: int) -> bool:
    """Tell whether a process exists, a zombie included."""
    return Path(f"/proc/{pid}").exists()


def children() -> set[int]:
    """Return the processes that this one started and that are still there, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid():
            found.add(int(stat.parent.name))
    return found


async def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.02)


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Fitter] = []

    def make_one(name: str) -> Fitter:
        made.append(make_process(name))
        return made[-1]

    yield make_one
    for fitter in made:
        await fitter.close()


async def test_a_large_window_comes_back_to_the_last_bit(make: Make) -> None:
    rng = np.random.default_rng(5)
    returns = rng.standard_normal((1000, 1000))
    returns[rng.random(returns.shape) < 0.1] = np.nan
    arrays = {"returns": returns, "zero": np.array(-0.0), "none": np.empty((0, 4))}
    answer = await make("echo").fit(a_request(arrays=arrays))
    assert isinstance(answer, Fit)
    assert {name: (a.shape, a.tobytes()) for name, a in answer.arrays.items()} == {
        name: (a.shape, a.tobytes()) for name, a in arrays.items()
    }


async def test_settings_arrive_as_json_values(make: Make) -> None:
    answer = await make("settings").fit(a_request(3, names=("A", "B"), rate=0.1, none=None))
    assert isinstance(answer, FitFailure)
    assert (answer.number, answer.code) == (3, "not_converged")
    assert answer.reason == "first 123 {'names': ['A', 'B'], 'none': None, 'rate': 0.1}"


async def test_one_request_after_the_other_is_answered_in_order(make: Make) -> None:
    fitter = make("settings")
    answers = await asyncio.gather(*(fitter.fit(a_request(number)) for number in range(20)))
    assert [answer.number for answer in answers if isinstance(answer, FitFailure)] == [*range(20)]


async def test_the_arrays_of_a_request_stay_as_they_are(make: Make) -> None:
    arrays = {"returns": np.zeros((3, 3))}
    answer = await make("change_the_request").fit(a_request(arrays=arrays))
    assert isinstance(answer, Fit)
    assert answer.arrays["returns"].tolist() == np.ones((3, 3)).tolist()
    assert not arrays["returns"].any()


async def test_a_fit_of_nan_is_handed_on_for_others_to_judge(make: Make) -> None:
    answer = await make("give_nan").fit(a_request())
    assert isinstance(answer, Fit)
    assert answer.arrays["x"].tobytes() == np.array([np.nan, np.inf, -0.0]).tobytes()


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("fail", "crashed", "The calibration raised ArithmeticError: the matrix is singular."),
        ("run_out_of_memory", "memory", "The calibration raised MemoryError."),
        ("leave", "crashed", "The calibration raised SystemExit: enough."),
        ("give_nothing", "invalid", "The calibration returned NoneType, which is no fit."),
        ("give_float32", "invalid", "Array 'x' of the fit holds float32, not float64."),
    ],
)
async def test_what_goes_wrong_is_one_sentence_and_the_next_fit_is_tried_all_the_same(
    make: Make, name: str, code: str, sentence: str
) -> None:
    fitter = make(name)
    for number in (1, 2):
        answer = await fitter.fit(a_request(number))
        assert failed(answer, code) == sentence
        assert isinstance(answer, FitFailure)
        assert answer.number == number


async def test_a_calibration_that_cannot_be_loaded_is_a_failure(make: Make) -> None:
    reason = failed(await make("not_there").fit(a_request()), "crashed")
    path = "tests.contract.fits:not_there"
    assert reason.startswith(f"The calibration {path} cannot be loaded: AttributeError")


async def test_a_request_that_is_none_is_a_mistake_of_the_caller(make: Make) -> None:
    with pytest.raises(ValueError, match="float32"):
        await make("echo").fit(a_request(arrays={"x": np.zeros(3, np.float32)}))


async def test_closing_answers_what_is_under_way_as_cancelled(make: Make, tmp_path: Path) -> None:
    fitter, started = make("sleep"), tmp_path / "started"
    request = a_request(started=str(started), seconds=60.0)
    fits = [asyncio.create_task(fitter.fit(request)) for _ in range(2)]
    await until(started.exists)
    await asyncio.wait_for(fitter.close(), SOON_S)
    for answer in await asyncio.wait_for(asyncio.gather(*fits), SOON_S):
        failed(answer, "cancelled")
    failed(await fitter.fit(request), "cancelled")
    await fitter.close()


async def test_closing_what_was_never_used_does_nothing(make: Make) -> None:
    fitter = make("echo")
    await fitter.close()
    await fitter.close()


async def test_the_process_is_kept_for_the_next_fit() -> None:
    async with opened(make_process("count_threads")) as fitter:
        assert fitter.pid is None
        answers = [await fitter.fit(a_request()) for _ in range(2)]
        pids = {int(a.arrays["pid"][0]) for a in answers if isinstance(a, Fit)}
        assert pids == {fitter.pid}
        assert os.getpid() not in pids


async def test_the_process_computes_on_one_thread_and_after_everybody_else() -> None:
    async with opened(make_process("count_threads")) as fitter:
        answer = await fitter.fit(a_request())
    assert isinstance(answer, Fit)
    threads = answer.arrays["threads"]
    assert threads.size
    assert (threads == 1.0).all()
    assert answer.arrays["nice"][0] == min(19, os.nice(0) + 10)


async def test_the_process_imports_nothing_from_the_folder_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    async with opened(make_process("echo")) as fitter:
        assert isinstance(await fitter.fit(a_request()), Fit)


async def test_a_fit_that_takes_too_long_is_killed_and_the_next_one_works(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with opened(make_process("sleep_or_echo")) as fitter:
        assert isinstance(await fitter.fit(a_request()), Fit)  # it is there: starting takes no part
        fitter._timeout_s = 3.0
        began_s = time.monotonic()
        answer = await fitter.fit(a_request(started=str(started), seconds=600.0))
        # a single try: a second one would take another 3 s
        assert 3.0 <= time.monotonic() - began_s < 6.0
        assert failed(answer, "timeout") == "The fit took more than 3 s."
        assert not is_there(int(started.read_text()))
        assert fitter.pid is None
        fitter._timeout_s = TIMEOUT_S
        assert isinstance(await fitter.fit(a_request()), Fit)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is watched in /proc")
async def test_a_fit_that_grows_too_large_is_killed() -> None:
    async with opened(make_process("allocate", memory_bytes=400_000_000)) as fitter:
        reason = failed(await fitter.fit(a_request()), "memory")
        found = re.fullmatch(r"The fit took (\d+) MB of memory, more than 400 MB\.", reason)
        assert found
        # 8 MB each .01 s: what is taken between two looks is far below this, on a busy machine too
        assert 400 <= int(found[1]) < 1200
        assert fitter.pid is None


async def test_a_process_that_dies_is_tried_once_more_and_then_said(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    async with opened(make_process("die")) as fitter:
        reason = failed(await fitter.fit(a_request(deaths=str(deaths))), "crashed")
    assert reason == (
        "The worker ended in the middle of a fit (exit code 3: fatal: the end is near) (2 tries)."
    )
    pids = deaths.read_text().split()
    assert len(set(pids)) == len(pids) == 2
    assert not any(is_there(int(pid)) for pid in pids)


async def test_a_second_try_may_succeed(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    arrays = {"x": np.arange(3.0)}
    async with opened(make_process("die_once")) as fitter:
        answer = await fitter.fit(a_request(arrays=arrays, deaths=str(deaths)))
    assert isinstance(answer, Fit)
    assert answer.arrays["x"].tolist() == [0.0, 1.0, 2.0]
    assert len(deaths.read_text().split()) == 1


async def test_without_retries_there_is_one_try(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    async with opened(make_process("die", retries=0)) as fitter:
        failed(await fitter.fit(a_request(deaths=str(deaths))), "crashed")
    assert len(deaths.read_text().split()) == 1


async def test_a_process_that_is_killed_says_by_what() -> None:
    async with opened(make_process("be_killed")) as fitter:
        reason = failed(await fitter.fit(a_request()), "crashed")
    assert "signal 9" in reason


async def test_a_process_that_died_between_two_fits_is_replaced_without_a_try() -> None:
    async with opened(make_process("echo", retries=0)) as fitter:
        await fitter.fit(a_request())
        pid = fitter.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_there(pid))
        # it is reaped by a thread, and then said to the event loop
        await until(lambda: fitter._child is not None and not fitter._child.is_alive())
        assert isinstance(await fitter.fit(a_request()), Fit)
        assert fitter.pid != pid


async def test_cancelling_kills_the_process_and_leaves_no_zombie(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with opened(make_process("sleep_or_echo")) as fitter:
        fit = asyncio.create_task(fitter.fit(a_request(started=str(started), seconds=600.0)))
        await until(lambda: started.exists() and started.read_text() != "")
        fit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fit
        assert not is_there(int(started.read_text()))
        assert isinstance(await fitter.fit(a_request()), Fit)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
async def test_cancelling_at_any_moment_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    arrays = {"x": np.zeros(1_000_000)}
    in_the_fit = 0
    async with opened(make_process("sleep_or_echo")) as fitter:

        async def cancelled(delay_s: float, request: FitRequest) -> None:
            fit = asyncio.create_task(fitter.fit(request))
            await asyncio.sleep(delay_s)
            fit.cancel()
            await asyncio.wait({fit})
            there = set() if fitter.pid is None else {fitter.pid}
            assert children() - before == there
            if not fit.cancelled():
                assert isinstance(fit.result(), Fit)

        for delay_s in (0.0, 0.01, 0.1, 0.2):  # while the process starts
            await cancelled(delay_s, a_request(arrays=arrays))
        for k, delay_s in enumerate((0.0, 0.001, 0.003, 0.01, 0.03, 1.0)):
            assert isinstance(await fitter.fit(a_request()), Fit)  # it is there
            started = tmp_path / str(k)
            request = a_request(arrays=arrays, started=str(started), seconds=600.0)
            await cancelled(delay_s, request)
            in_the_fit += started.exists()
        assert isinstance(await fitter.fit(a_request(arrays=arrays)), Fit)
    assert in_the_fit > 0
    assert children() == before


async def test_closing_leaves_no_process() -> None:
    fitter = make_process("echo")
    await fitter.fit(a_request())
    pid = fitter.pid
    assert pid is not None
    assert is_there(pid)
    await fitter.close()
    assert not is_there(pid)


async def test_what_libraries_write_does_not_get_between_frames() -> None:
    arrays = {"x": np.arange(100_000.0)}
    async with opened(make_process("say_much")) as fitter:
        for number in range(3):
            answer = await fitter.fit(a_request(number, arrays))
            assert isinstance(answer, Fit)
            assert answer.arrays["x"].tobytes() == arrays["x"].tobytes()


async def test_garbage_in_the_place_of_an_answer_is_no_answer() -> None:
    async with opened(make_process("write_garbage")) as fitter:
        reason = failed(await fitter.fit(a_request()), "invalid")
    assert reason.startswith("The worker's answer cannot be read: not a frame")


async def test_a_traceback_goes_to_the_debug_log() -> None:
    with structlog.testing.capture_logs() as lines:
        async with opened(make_process("fail")) as fitter:
            await fitter.fit(a_request())
    text = "".join(line["stderr"] for line in lines if line["event"] == "fit worker")
    assert "Traceback" in text
    assert "and more that nobody wants to read" in text
    assert {line["log_level"] for line in lines} == {"debug"}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks at processes in /proc")
async def test_the_process_ends_with_its_parent_even_in_the_middle_of_a_fit(tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = (
        "import asyncio\n"
        "from tests.contract.test_fitters import a_request, make_process\n"
        f"request = a_request(started={str(started)!r}, seconds=600.0)\n"
        "asyncio.run(make_process('sleep').fit(request))\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT)
    try:
        await until(lambda: started.exists() and started.read_text() != "")
    finally:
        parent.kill()
        await parent.wait()
    pid = int(started.read_text())

    def has_ended() -> bool:
        # whoever inherits it need not have reaped it yet
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    await until(has_ended)


async def test_the_event_loop_goes_on_while_a_fit_computes(tmp_path: Path) -> None:
    async with opened(make_process("sleep")) as fitter:
        request = a_request(started=str(tmp_path / "started"), seconds=0.5)
        fit = asyncio.create_task(fitter.fit(request))
        n = 0
        while not fit.done():
            await asyncio.sleep(0.01)
            n += 1
    # 50 in the sleep alone; a third of it is left for a busy machine
    assert n >= 15
