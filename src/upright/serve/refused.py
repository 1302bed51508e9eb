"""What the server answers where it cannot give a prediction."""

from __future__ import annotations


class RefusedError(Exception):
    """A request that is refused.

    Args:
        status: The HTTP status.
        code: What went wrong, for programs: one word with underscores.
        message: What went wrong and what to do, for people.
        retry_after: After how many seconds it is worth asking again.
        close: Whether the connection is closed, since the rest of the request is not read.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: int | None = None, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after, self.close = retry_after, close

    @property
    def body(self) -> dict[str, dict[str, str]]:
        """The answer as plain data."""
        return {"error": {"code": self.code, "message": self.message}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the answer."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**found, "Connection": "close"} if self.close else found
