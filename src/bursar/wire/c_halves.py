"""The C halves of `signal` and `socket`, for processes that live in the hot path.

The public modules wrap every constant into an enum: that costs 6 and 10 ms, half of what a whole tool call may
take. Names and behaviour are the same, but numbers are plain integers. Where an interpreter has no such
half, the public module does.
"""

TYPE_CHECKING = False
"""As in `typing`, which itself would be too dear here; type checkers know the name."""

if TYPE_CHECKING:
    import signal
    import socket
else:
    try:
        import _signal as signal
    except ImportError:
        import signal
    try:
        import _socket as socket
    except ImportError:
        import socket

__all__ = ["signal", "socket"]
