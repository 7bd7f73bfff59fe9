"""The one exception that stands for an expected failure."""


class ExportError(Exception):
    """A failure with a stable code, a message that names what is wrong, and a hint that can be acted on."""

    def __init__(self, code: str, message: str, hint: str = ""):
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
