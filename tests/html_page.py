"""Reads an HTML page strictly: every tag closed in order, texts and attributes collected."""

from html.parser import HTMLParser

VOID = {"meta", "input", "br", "link", "img"}
BY_THE_PAGE = {"script", "style", "title"}


class Page(HTMLParser):
    """Parses at once.

    Attributes:
        tags: of every element, in order.
        attributes: (tag, name, value) of every attribute.
        texts: of the body, in order, as a reader sees them.
        styles: contents of style elements.
    """

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.styles = [], [], [], []
        self._open = []
        self.feed(source)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        if self._open and self._open[-1] == "style":
            self.styles.append(data)
        elif data.strip() and not (self._open and self._open[-1] in BY_THE_PAGE):
            self.texts.append(data.strip())
