"""A package, so that ``tests.oracles`` is ours even if a dependency ships such a folder."""
