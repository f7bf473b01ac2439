"""The errors a user can meet; each is one sentence and has an exit code.

    StreamCalibError            1
      ConfigError               3   a key of the configuration is wrong
      InputError                4   a file or an argument cannot be used
      TransportError            5   the broker cannot be reached or refuses
        ForbiddenError          5   its ACLs do not let this user do something
        MissingTopicError       6   a topic does not exist
      PortInUseError            7   the HTTP address is taken
      RecoveryError             8   the state cannot be built again as it was
        LostInputError          8   input that is needed is not in the log any more
      OwnershipError            9   another process goes by this name, or keeps taking over

Numeric trouble is a value, a programmer's mistake an ``assert``; only the outside
world raises.
"""

SENTENCE_MAX = 4000  # characters; a list of hundreds of symbols still fits


def printable(text: str, length_max: int) -> str:
    """Return text with what a terminal would obey escaped, and cut where it is longer."""
    if len(text) > length_max:
        text = text[: length_max - 3] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class StreamCalibError(Exception):
    """Base of all errors; ``str(error)`` is one sentence for the user.

    What topics, files and brokers say may be part of it: it is on one line, has nothing in it that
    a terminal would obey, and an end.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__(), SENTENCE_MAX)


class ConfigError(StreamCalibError):
    """A configuration key is unknown, missing or has an unusable value."""

    exit_code = 3


class InputError(StreamCalibError):
    """A file or an argument cannot be read or understood."""

    exit_code = 4


class TransportError(StreamCalibError):
    """The broker cannot be reached, refuses, or does not answer in time."""

    exit_code = 5


class ForbiddenError(TransportError):
    """The broker's ACLs do not let this user do something."""


class MissingTopicError(TransportError):
    """A topic that is needed does not exist."""

    exit_code = 6


class PortInUseError(StreamCalibError):
    """The HTTP address is taken by another process."""

    exit_code = 7


class RecoveryError(StreamCalibError):
    """The state cannot be built again from snapshot, journal and input."""

    exit_code = 8


class LostInputError(RecoveryError):
    """Records that are needed are not in the log any more."""


class OwnershipError(StreamCalibError):
    """Another process has this universe, or goes by the name of this one."""

    exit_code = 9


class NotOurTurnError(OwnershipError):
    """The workers have given this universe to another process, as far as they were asked."""
