"""The kinds of mutations: single edits, rewiring, and grafts from donors."""
