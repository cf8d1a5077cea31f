"""What every test may rely on, however the tests were started."""

import signal

# What a shell starts in the background of a script ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
