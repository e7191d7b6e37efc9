"""Several drivers of one search: each with a store of its own, and mail between them."""
