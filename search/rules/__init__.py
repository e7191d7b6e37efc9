"""Shipped rules: rule files, which are data; `veldt.search.rule_sources` reads them."""
