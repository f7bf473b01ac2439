"""Which ticks of one source are applied: event time judged in record order."""

import numpy as np

from stream_calib.kernels._jit import kernel
from stream_calib.values import NO_TIME

APPLY, LATE, AHEAD, JUMP, HELD, UNUSABLE = 0, 1, 2, 3, 4, 5
CONFIRMATIONS = 3  # ticks that must agree before an uncorroborated jump is believed
HELD_MAX = 256


@kernel("i8(i8[::1], i8[::1], b1[::1], i8, i8, i8, i8, i8, i1[::1], i8[::1])")
def admit_ticks(
    time_ns: np.ndarray,
    stamp_ns: np.ndarray,
    usable: np.ndarray,
    newest_ns: int,
    decided_ns: int,
    lateness_ns: int,
    max_ahead_ns: int,
    max_jump_ns: int,
    out_code: np.ndarray,
    out_newest_ns: np.ndarray,
) -> int:
    """Judge the ticks of one source, in record order.

        late   time < max(newest - lateness, decided)
        ahead  time > stamp + max_ahead
        jump   time > newest + max_jump, the stamp does not vouch for it, and no
               CONFIRMATIONS ticks in a row agree on it

    Parameters
    ----------
    time_ns : (m,)
        Event times.
    stamp_ns : (m,)
        The log's own times, negative where it has none. A stamp vouches for a tick that is
        at most ``max_jump`` older; a backfilled log vouches for nothing.
    usable : (m,)
        False for ticks refused before; they are no evidence.
    newest_ns, decided_ns
        Newest event time applied from this source so far, and the outside decision on it.
    out_code : (m,), overwritten
        APPLY, LATE, AHEAD, JUMP, HELD (undecided at the end: judge again with what follows)
        or UNUSABLE.
    out_newest_ns : (m,), overwritten
        Newest event time of the source when the tick was scanned.

    Returns
    -------
    int
        Newest event time applied.
    """
    held = 0
    first_held = 0
    for t in range(time_ns.size):
        out_newest_ns[t] = newest_ns
        x = time_ns[t]
        if not usable[t]:
            out_code[t] = UNUSABLE
            continue
        if stamp_ns[t] >= 0 and x > stamp_ns[t] + max_ahead_ns:
            out_code[t] = AHEAD
            continue
        vouched = stamp_ns[t] >= 0 and x >= stamp_ns[t] - max_jump_ns
        doubted = not vouched and (newest_ns == NO_TIME or x > newest_ns + max_jump_ns)
        if doubted:
            if held == 0:
                first_held = t
            held += 1
            out_code[t] = HELD
            agreeing = 0
            for u in range(first_held, t + 1):
                if out_code[u] == HELD and abs(time_ns[u] - x) <= max_jump_ns:
                    agreeing += 1
            if agreeing < CONFIRMATIONS:
                if held > HELD_MAX:
                    while out_code[first_held] != HELD:
                        first_held += 1
                    out_code[first_held] = JUMP
                    held -= 1
                continue
        else:
            bound = decided_ns if newest_ns == NO_TIME else max(newest_ns - lateness_ns, decided_ns)
            out_code[t] = LATE if x < bound else APPLY
            newest_ns = max(newest_ns, x)
        if held > 0:
            for u in range(first_held, t + 1):
                if out_code[u] != HELD:
                    continue
                y = time_ns[u]
                if abs(y - x) > max_jump_ns if doubted else y > newest_ns + max_jump_ns:
                    out_code[u] = JUMP
                    continue
                bound = decided_ns
                if newest_ns != NO_TIME:
                    bound = max(newest_ns - lateness_ns, decided_ns)
                out_code[u] = LATE if y < bound else APPLY
                newest_ns = max(newest_ns, y)
            held = 0
        out_newest_ns[t] = newest_ns
    return newest_ns
