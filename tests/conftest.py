import signal


def pytest_configure() -> None:
    """A shell's background job has SIGINT ignored, and so has all that it starts: Ctrl-C ends nothing."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
