"""Calls made by several threads, all begun at the same time."""

import contextlib
import sys
import threading


@contextlib.contextmanager
def switching(seconds):
    """Where there is a global lock, threads change at intervals as short as this, if the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def together(*calls):
    """What each call returned or raised."""
    found, barrier = [None] * len(calls), threading.Barrier(len(calls))

    def run(place, call):
        barrier.wait()
        try:
            found[place] = call()
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def all_returned(found):
    """The same, where nobody raised; the first error is raised here, with its traceback."""
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found
