"""One interrupt, before a chosen instruction of chosen code."""

import sys


def interrupted(function, step, chosen):
    """Calls a function with a KeyboardInterrupt before instruction number `step`, counted from 0, of the code objects
    that `chosen` picks; whether it came out. False where there are fewer instructions."""
    left = step

    def at(frame, event, argument):
        nonlocal left
        if event == "opcode":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return at

    def entered(frame, event, argument):
        if chosen(frame.f_code):
            if sys.version_info >= (3, 13):
                frame.f_trace = at  # without it the first run of a code object has no events of instructions
            frame.f_trace_opcodes = True
            if sys.version_info[:2] == (3, 12):
                sys.settrace(entered)  # the same
            return at
        return None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    assert left >= 0, "the interrupt was swallowed"
    return False
