"""Processes beside a search's driver that make its children."""
