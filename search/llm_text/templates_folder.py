"""The texts around what a prompt shows: files with placeholders, of veldt or of the user.

A template is plain text with placeholders such as `{parent}`. They are replaced all at once and
literally: what a program or a user's words hold is never searched for placeholders. Each template
has its own, and names each at least once. A user's folder may hold some of the templates; the
others are veldt's.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from veldt.search.errors import TemplateError
from veldt.tasks.common import spelling

FOLDER: Final = Path(__file__).parent / "templates"
SYSTEM: Final = "system.md"
USER: Final = "user.md"
REPAIR: Final = "repair.md"
# The placeholders of each template.
PLACEHOLDERS: Final[Mapping[str, tuple[str, ...]]] = {
    SYSTEM: ("signature", "max_slots", "max_statements", "reads", "instructions"),
    USER: ("tasks", "objective", "about", "parent", "best", "failed", "num_programs"),
    REPAIR: ("request", "answer", "problem"),
}
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_]+)\}")
_MAX_BYTES: Final = 100_000


def check(folder: Path) -> None:
    """Check a user's templates.

    Raises:
      TemplateError: There is none, a file is no template, or a placeholder is missing or unknown.
    """
    names = sorted(path.name for path in folder.glob("*.md")) if folder.is_dir() else []
    known = ", ".join(PLACEHOLDERS)
    if not names:
        raise TemplateError(f"{folder} is no folder with templates; it may hold {known}")
    for name in names:
        if name not in PLACEHOLDERS:
            hint = spelling.did_you_mean(name, PLACEHOLDERS)
            raise TemplateError(f"{folder / name} is no template{hint}; there are {known}")
        read(name, folder)


def read(name: str, folder: Path | None) -> str:
    """Return a template of the user's folder, or veldt's where the folder has none, checked.

    Raises:
      TemplateError: It cannot be read, or a placeholder is missing or unknown.
    """
    path = FOLDER / name
    if folder is not None and (folder / name).exists():
        path = folder / name
    try:
        data = path.read_bytes()
        if len(data) > _MAX_BYTES:
            raise TemplateError(f"{path} is longer than {_MAX_BYTES} bytes")
        text = data.decode("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path} cannot be read: {error}") from None
    wanted = PLACEHOLDERS[name]
    found = set(_PLACEHOLDER.findall(text))
    for placeholder in sorted(found - {*wanted}):
        hint = spelling.did_you_mean(placeholder, wanted)
        listed = ", ".join(f"{{{each}}}" for each in wanted)
        raise TemplateError(
            f"{path}: {{{placeholder}}} is no placeholder of {name}{hint}; it has {listed}"
        )
    missing = [each for each in wanted if each not in found]
    if missing:
        raise TemplateError(f"{path}: the placeholder {{{missing[0]}}} is missing")
    return text


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return a template with its placeholders replaced; what is put in stays as it is."""
    return _PLACEHOLDER.sub(lambda found: values[found.group(1)], template)
