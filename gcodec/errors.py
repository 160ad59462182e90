"""The error of this package."""


class UserError(Exception):
    """A user's mistake, told in one line that names the culprit and what to do; never a bug of ours."""
