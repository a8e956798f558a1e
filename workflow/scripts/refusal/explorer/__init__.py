"""The explorer: one page that shows a study and needs nothing beside it, network included."""
