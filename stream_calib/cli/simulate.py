"""``simulate``: write ticks with a known correlation path."""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

ZSTD_LEVEL = 19


def simulate(
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Write to this .jsonl, .jsonl.gz or .jsonl.zst file."),
    ],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same ticks.")] = 1,
    symbols: Annotated[int, typer.Option(min=2, help="Number of symbols.")] = 12,
    duration_s: Annotated[
        float, typer.Option(min=1.0, help="Seconds of event time; the break is in the middle.")
    ] = 7200.0,
    rate: Annotated[
        float, typer.Option(min=1e-6, help="Ticks per second and symbol, on average.")
    ] = 1.0,
    noise: Annotated[
        float, typer.Option(min=0.0, help="Standard deviation of the error on each log price.")
    ] = 0.0,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the true correlations to this JSON file."),
    ] = None,
) -> None:
    """Simulate ticks whose true correlations are known, and break."""
    import orjson

    from stream_calib.errors import InputError
    from stream_calib.simulation import simulate as simulate_ticks

    try:
        ticks = simulate_ticks(symbols, duration_s, seed=seed, rate_hz=rate, noise=noise)
    except ValueError as error:
        raise InputError(str(error)) from None
    _write(out, map(orjson.dumps, ticks.records()))
    if truth is not None:
        document = {
            "symbols": ticks.symbols,
            "path_time_ns": [str(time_ns) for time_ns in ticks.path_time_ns],
            "path_corr": ticks.path_corr,
            "vol_per_sqrt_second": ticks.vol,
            "seed": ticks.seed,
        }
        _write(truth, [orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)])
    print(f"{len(ticks.time_ns):,} ticks of {symbols} symbols in {out}")


def _write(path: Path, lines: Iterable[bytes]) -> None:
    import zstandard

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
