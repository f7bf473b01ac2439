"""Poll, decode, advance, publish: the engine joined to the outside world."""
