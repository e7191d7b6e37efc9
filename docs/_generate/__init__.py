"""Generate the pages and tables of the site that are not written by hand."""
