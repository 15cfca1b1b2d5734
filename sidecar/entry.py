"""The program's first steps: Ctrl-C while the rest is imported ends it, without a traceback.

Nothing has been done by then, so the kernel's own way to end a process is right. What Python does before
it comes here cannot be mended from here.
"""

import signal


def entry() -> None:
    """Run the command line as this process."""
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # ignored under nohup, and by `&`
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sidecar import cli

    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.entry()
