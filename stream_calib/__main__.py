"""``python -m stream_calib`` is ``stream-calib``."""

from stream_calib.cli import main

if __name__ == "__main__":
    main()
