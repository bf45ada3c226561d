"""What a client asks for by name, and the server was not started with."""

__all__ = ["NotServedError"]


class NotServedError(LookupError):
    """The server was not started with a model or a collection of that name."""
