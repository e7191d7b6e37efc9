"""Programs as formulas in LaTeX: `formula.formula` writes one."""
