"""Code of users: finding it by name, and saying which line of it an error comes from."""
