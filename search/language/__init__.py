"""The language of update rules: values, text, data flow, and the instruction set."""
