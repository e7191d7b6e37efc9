"""Tasks from a user's model, loss and arrays: `veldt.task`."""
