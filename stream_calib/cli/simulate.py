"""``simulate``: write ticks with a known correlation path."""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
import zstandard

ZSTD_LEVEL = 19


def simulate(
    out: Annotated[Path, typer.Option(help="Where to write: .jsonl, .jsonl.gz or .jsonl.zst.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    symbols: Annotated[int, typer.Option(help="Number of symbols.")] = 12,
    duration_s: Annotated[float, typer.Option(help="Seconds of event time.")] = 7200.0,
    rate: Annotated[float, typer.Option(help="Ticks per second and symbol.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Standard deviation of log price noise.")] = 0.0,
    truth: Annotated[Path | None, typer.Option(help="Write the true path here, as JSON.")] = None,
) -> None:
    """Simulate ticks with a break in their correlation, and the truth beside them."""
    import orjson

    from stream_calib.errors import InputError
    from stream_calib.simulation import simulate as simulate_ticks

    try:
        ticks = simulate_ticks(symbols, duration_s, seed=seed, rate_hz=rate, noise=noise)
    except ValueError as error:
        raise InputError(str(error)) from None
    _write(out, (orjson.dumps(record) for record in ticks.records()))
    if truth is not None:
        document = {
            "symbols": ticks.symbols,
            "path_time_ns": [str(time_ns) for time_ns in ticks.path_time_ns],
            "path_corr": ticks.path_corr,
            "vol_per_sqrt_second": ticks.vol,
            "seed": ticks.seed,
        }
        option = orjson.OPT_SERIALIZE_NUMPY
        _write(truth, [orjson.dumps(document, option=option)])
    print(f"{len(ticks.time_ns):,} ticks of {symbols} symbols in {out}")


def _write(path: Path, lines: Iterable[bytes]) -> None:
    from stream_calib.errors import InputError

    try:
        with path.open("wb") as raw:
            match path.suffix:
                case ".gz":  # no name and no time in the head: the same bytes every time
                    with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                        file.writelines(line + b"\n" for line in lines)
                case ".zst":
                    with zstandard.ZstdCompressor(ZSTD_LEVEL).stream_writer(raw) as packed:
                        for line in lines:
                            packed.write(line + b"\n")
                case _:
                    raw.writelines(line + b"\n" for line in lines)
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror})"
        raise InputError(message) from None
