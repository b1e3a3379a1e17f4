"""A strict reader of pages: what is open is closed, in order, and what a link names is there."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["Page", "read_page"]

_VOID = frozenset(["meta", "link", "img", "br", "hr", "input"])


class Page(HTMLParser):
    """Elements with their attributes, the text outside of scripts, and what is wrong."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.faults: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len({key for key, _ in attrs}) < len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.text += data

    def close(self) -> None:
        super().close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, key: str) -> list[str]:
        """Return what an attribute is, wherever it stands."""
        return [value for _, attributes in self.elements if (value := attributes.get(key)) is not None]


def read_page(text: str) -> Page:
    """Return the page that a text is."""
    page = Page()
    page.feed(text)
    page.close()
    return page
