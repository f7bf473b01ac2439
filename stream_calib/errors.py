"""The errors a user can meet; each is one sentence and has an exit code.

    StreamCalibError            1
      ConfigError               3   a key of the configuration is wrong
      InputError                4   a file or an argument cannot be used
      TransportError            5   the broker cannot be reached or refuses
        MissingTopicError       6   a topic does not exist
      PortInUseError            7   the HTTP address is taken
      RecoveryError             8   the state cannot be built again as it was
        LostInputError          8   input that is needed is not in the log any more
      OwnershipError            9   another process runs this universe

Numeric trouble is a value, a programmer's mistake an ``assert``; only the outside
world raises.
"""


class StreamCalibError(Exception):
    """Base of all errors; ``str(error)`` is one sentence for the user."""

    exit_code = 1


class ConfigError(StreamCalibError):
    """A configuration key is unknown, missing or has an unusable value."""

    exit_code = 3


class InputError(StreamCalibError):
    """A file or an argument cannot be read or understood."""

    exit_code = 4


class TransportError(StreamCalibError):
    """The broker cannot be reached, refuses, or does not answer in time."""

    exit_code = 5


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
    """Another process runs this universe, or keeps its folder."""

    exit_code = 9
