"""The one error that is the user's to mend."""


class InputError(ValueError):
    """A mistake in the input: one line that names file or key, what is wrong, and the remedy."""
