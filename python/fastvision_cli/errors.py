"""How commands fail."""

USAGE, DATA, ENVIRONMENT = 2, 3, 4


class CommandError(Exception):
    """Ends the command with this exit code, one ``error:`` line and perhaps one ``hint:`` line."""

    def __init__(self, exit_code: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.exit_code, self.message, self.hint = exit_code, message, hint


def one_line(text: object) -> str:
    return " ".join(str(text).split())


def reason(error: OSError) -> str:
    """What the system says, without number and path."""
    return error.strerror or one_line(error) or type(error).__name__
