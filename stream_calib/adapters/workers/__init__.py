"""Full fits away from the event loop: in a process of their own.

Nothing is imported here: the process starts with what it needs and no more.
"""
