"""The tasks of the suite `unseen`: other data and other models than searches train on."""
