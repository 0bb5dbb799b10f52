"""Templates of messages: the user's own where there are any, else the shipped ones. A broken one never costs a message.

Sandboxed: a template sees the values that it is given and can do nothing else.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

FORMS = {"text": "txt", "markdown": "md", "html": "html"}
NAMES = tuple(f"{kind}.{ending}" for kind in ("alert", "summary", "digest") for ending in FORMS.values())

_MARKUP = re.compile(r"([\\`*_\[\]<>#~|])")


def _environment(loader: BaseLoader) -> Environment:
    found = SandboxedEnvironment(
        loader=loader,
        autoescape=lambda name: bool(name and name.endswith(".html")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["md"] = marked
    return found


def marked(text: object) -> str:
    """The text so that Markdown shows it as it is."""
    return _MARKUP.sub(r"\\\1", str(text))


class Templates:
    """`folder` holds templates by the names of the shipped ones, as `alert.txt`; those it lacks are the shipped ones.

    `faults` tells which of them failed, and why, since somebody looked.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.faults: dict[str, str] = {}
        self._own = _environment(FileSystemLoader(folder)) if folder else None
        self._shipped = _environment(PackageLoader("notify", "templates"))

    def render(self, name: str, seen: Mapping[str, Any]) -> str:
        """The named template with these values. Where the user's own fails, the shipped one."""
        if self._own is not None and self.overridden(name):
            try:
                return self._own.get_template(name).render(seen).strip()
            except Exception as error:  # noqa: BLE001 - a template may raise anything, and the message must go out
                self.faults[name] = _told(error)
        return self._shipped.get_template(name).render(seen).strip()

    def overridden(self, name: str) -> bool:
        return self.folder is not None and (self.folder / name).is_file()

    def strangers(self) -> list[str]:
        """What is wrong with the folder as a whole: it is not there, or holds templates that nothing asks for."""
        if self.folder is None:
            return []
        if not self.folder.is_dir():
            return [f"{self.folder} is no folder"]
        found = sorted(path.name for path in self.folder.iterdir() if path.suffix[1:] in FORMS.values())
        return [f"{name}: nothing has this name (names: {', '.join(NAMES)})" for name in found if name not in NAMES]

    def take_faults(self) -> dict[str, str]:
        """What failed since this was asked last."""
        found, self.faults = self.faults, {}
        return found


def _told(error: Exception) -> str:
    """The error with its line; of what is no template's error only the name, since its text may quote values."""
    if isinstance(error, TemplateError):
        line = getattr(error, "lineno", None)
        return f"{type(error).__name__}: {error.message}" + (f", line {line}" if line else "")
    return type(error).__name__


SHIPPED = Templates()
