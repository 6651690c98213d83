"""Jinja2 for mail: sandboxed, escaping by itself in HTML, and strict about names that do not exist.

Templates come from the people who run batchd; what they show comes from anybody. So values are always passed as values,
never pasted into a template. Jinja2 is imported when the first template is used: most processes use none, and it costs
each of them 0.1 s and 5 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchd.errors import JobError

if TYPE_CHECKING:
    from jinja2 import Environment

_OWN = Path(__file__).parent / "templates"
_HTML = (".html", ".htm", ".html.j2", ".htm.j2")
_UNSEEN = {"style", "script", "title", "head"}
_ENDS_A_LINE = {"p", "div", "br", "tr", "li", "h1", "h2", "h3", "h4", "table"}


class Templates:
    """The templates of one folder, over batchd's own under `batchd/`. For one thread."""

    def __init__(self, folder: Path | None) -> None:
        if folder is not None and not folder.is_dir():
            raise JobError(f"there is no folder of templates {folder}", retryable=False)
        self._folder = folder
        self._environment = _environment([_OWN] if folder is None else [folder, _OWN])
        self._environment.filters["thousands"] = lambda value: f"{value:,}"

    def add_filter(self, name: str, function: Any) -> None:
        """Let templates write `{{ value | name }}`."""
        self._environment.filters[name] = function

    def has(self, name: str) -> bool:
        """Return whether there is a template of that name."""
        from jinja2 import TemplateNotFound, TemplateSyntaxError  # noqa: PLC0415 (see the module)

        try:
            self._environment.get_template(name)
        except TemplateNotFound:
            return False
        except TemplateSyntaxError:
            return True
        return True

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        """Return the template filled in; raises JobError with its file, line and what is wrong."""
        from jinja2 import TemplateNotFound  # noqa: PLC0415 (see the module)

        try:
            return self._environment.get_template(name).render(values)
        except TemplateNotFound as error:
            raise JobError(f"there is no template {error.name!r} in {self._folder or _OWN}", retryable=False) from error
        except Exception as error:
            raise JobError(_complaint(name, error), hint=_hint(error, values), retryable=False) from error

    def fill(self, what: str, source: str, values: Mapping[str, Any]) -> str:
        """Return a template that was written in the config, as plain text; `what` names it in an error."""
        return self._filled(self._environment, what, source, values)

    def fill_html(self, what: str, source: str, values: Mapping[str, Any]) -> str:
        """Return the same as HTML, every value escaped."""
        return self._filled(self._environment.overlay(autoescape=True), what, source, values)

    def _filled(self, environment: Environment, what: str, source: str, values: Mapping[str, Any]) -> str:
        try:
            return environment.from_string(source).render(values)
        except Exception as error:
            raise JobError(_complaint(what, error), hint=_hint(error, values), retryable=False) from error


def _environment(folders: Sequence[Path]) -> Environment:
    from jinja2 import FileSystemLoader, StrictUndefined  # noqa: PLC0415 (see the module)
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415 (see the module)

    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folders),
        autoescape=lambda name: name is not None and name.endswith(_HTML),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def text_of(html: str) -> str:
    """Return what an HTML mail says, for those who read it as text."""
    reader = _TextReader()
    reader.feed(html)
    reader.close()
    lines = [" ".join(line.split()) for line in "".join(reader.parts).split("\n")]
    kept = [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]
    return "\n".join(kept).strip()


class _TextReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0
        self._link = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _ENDS_A_LINE:
            self.parts.append("\n")
        elif tag == "a":
            self._link = dict(attrs).get("href") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in _ENDS_A_LINE:
            self.parts.append("\n")
        elif tag in {"td", "th"}:
            self.parts.append("  ")
        elif tag == "a" and self._link:
            self.parts.append(f" ({self._link})")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data.replace("\n", " "))


def _complaint(name: str, error: Exception) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError  # noqa: PLC0415 (see the module)

    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TemplateSyntaxError):
        return f"template {error.name or name}, line {error.lineno}: {said}"
    kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
    return f"template {name}: {kind}{said}"


def _hint(error: Exception, values: Mapping[str, Any]) -> str | None:
    """Return which names there are, where one was missing."""
    from jinja2 import UndefinedError  # noqa: PLC0415 (see the module)

    if not isinstance(error, UndefinedError):
        return None
    return f"the names that it may use: {', '.join(map(str, values)) or 'none, `data` is empty'}"
