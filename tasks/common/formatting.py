"""How a spread is written behind a figure: never as a zero that reads like certainty."""


def plus_minus(error: float | None, decimals: int = 3, sign: str = "±") -> str:
    """Return a standard error as it follows its figure; empty where there is none.

    One that would round to zero keeps a digit; one that is zero is no evidence of anything (all
    seeds gave the same number, as at a floor or a ceiling), and is told in words.
    """
    if error is None:
        return ""
    if error == 0.0:
        return " (no spread)"
    if round(error, decimals) == 0.0:
        return f" {sign} {error:.0e}"
    return f" {sign} {error:.{decimals}f}"
