"""The one error that is the user's to mend."""


class InputError(ValueError):
    """A mistake in the input: one line that names file or key, what is wrong, and the remedy.

    Whatever a name or a library put into it, it is one line that moves no cursor of a terminal.
    """

    def __str__(self) -> str:
        """The message, with a space for every character that cannot be printed."""
        return "".join(c if c.isprintable() else " " for c in super().__str__())
