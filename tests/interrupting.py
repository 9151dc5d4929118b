"""One interrupt, before a chosen instruction of chosen code."""

import contextlib
import sys
import threading

TOOL = 4  # a number that nobody else of sys.monitoring's users has by custom


def interrupted(function, step, chosen):
    """Calls a function with a KeyboardInterrupt before instruction number `step`, counted from 0, of the code objects
    that `chosen` picks; whether it came out. False where there are fewer instructions."""
    left = step

    def count():
        nonlocal left
        left -= 1
        if left == -1:
            raise KeyboardInterrupt

    try:
        # from Python 3.12 on settrace misses the instructions of a function that is called for the first time
        with (traced if sys.version_info < (3, 12) else monitored)(count, chosen):
            function()
    except KeyboardInterrupt:
        return True
    assert left >= 0, "the interrupt was swallowed"
    return False


@contextlib.contextmanager
def traced(count, chosen):
    def at(frame, event, argument):
        if event == "opcode":
            count()
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
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def monitored(count, chosen):
    here, monitoring = threading.get_ident(), sys.monitoring

    def at(code, offset):
        if not chosen(code):
            return monitoring.DISABLE
        if threading.get_ident() == here:
            count()
        return None

    monitoring.use_tool_id(TOOL, "interrupted")
    monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, at)
    monitoring.set_events(TOOL, monitoring.events.INSTRUCTION)
    monitoring.restart_events()
    try:
        yield
    finally:
        monitoring.set_events(TOOL, 0)
        monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, None)
        monitoring.free_tool_id(TOOL)
