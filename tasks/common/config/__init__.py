"""Typed configs: dataclasses, YAML and JSON."""
