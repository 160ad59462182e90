"""The errors of this package."""


class UserError(Exception):
    """A user's mistake, told in one line that names the culprit and what to do; never a bug of ours."""


class WrongTypeError(UserError, TypeError):
    """An argument of a type that a function does not take."""


class WrongValueError(UserError, ValueError):
    """An argument of a shape or a range that a function does not take."""
