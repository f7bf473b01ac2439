"""The slow, readable twin of each kernel: plain Python and numpy, no recursion, no tricks."""
