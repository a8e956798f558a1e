"""Library of the refusal workflow: pure functions, usable from a notebook."""
