"""The command line: thin files that parse, call and print.

Every error is one sentence on standard error, with an exit code of its own.
"""

import os
import sys
from typing import Annotated

import typer

from stream_calib.adapters.log_pipe import say_last
from stream_calib.cli import (
    config,
    demo,
    doctor,
    export,
    feed,
    fit,
    replay,
    run,
    simulate,
    snapshot,
    topics,
    verify,
    watch,
)
from stream_calib.cli.ending import NO_THREAD, end_without_memory, occupy_standard_error
from stream_calib.errors import StreamCalibError

EXIT_CODES = """\b
Exit codes:
  0    done
  1    internal error, or nobody reads the output any more
  2    usage
  3    configuration
  4    file or argument
  5    Kafka or an exchange cannot be reached or refuses
  6    topic missing
  7    port in use
  8    the state cannot be recovered
  9    another process runs this universe
  10   no progress (watchdog)
  11   verify has found something
  130  interrupted
"""


app = typer.Typer(
    name="stream-calib",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text, also in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("replay")(replay.replay)
app.command("feed")(feed.feed)
app.command("fit")(fit.fit)
app.command("watch")(watch.watch)
app.command("export")(export.export)
app.command("simulate")(simulate.simulate)
app.command("doctor")(doctor.doctor)
app.command("verify")(verify.verify)
app.command("warmup")(run.warmup)
app.add_typer(topics.app, name="topics")
app.add_typer(config.app, name="config")
app.add_typer(snapshot.app, name="snapshot")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"stream-calib {version('stream-calib')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version."),
]


@app.callback()
def root(version: Version = False) -> None:
    """Live correlation matrices from ticks on Kafka."""


def main() -> None:
    """Run the command line; never shows a traceback unless asked to."""
    occupy_standard_error()
    try:
        try:
            app(prog_name="stream-calib")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # what goes wrong in writing shall be told here
    except StreamCalibError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except OSError as error:
        _drop_output()
        _fail(": ".join(filter(None, [error.filename, error.strerror or str(error)])), 4)
    except MemoryError:
        end_without_memory()
    except Exception as error:
        if str(error) == NO_THREAD:
            end_without_memory()
        if os.environ.get("STREAM_CALIB_TRACEBACK"):
            raise
        hint = "STREAM_CALIB_TRACEBACK=1 shows where"
        _fail(f"internal error: {type(error).__name__}: {error} ({hint})", 1)


def _fail(sentence: str, code: int) -> None:
    say_last(f"stream-calib: {sentence}\n")
    sys.exit(code)


def _drop_output() -> None:
    # what is still in the buffer has nowhere to go, which Python would complain about at its end
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
