"""The console: a web page for people, over the public gRPC services of any domain's processes. It holds no state.

How a request becomes a page, module by module:

* ``services``: a channel to each service; every answer is its message, or why there is none.
* ``looks``: what all services said of themselves last, kept while somebody watches: :class:`Look`.
* ``page``: a :class:`Page` is path, title, template and ``load(services, query) -> model``; its actions are POSTs.
* ``rendering``: Jinja2, strict: a template sees ``model``, ``query``, ``page`` and the filters that stand there.
* ``live``: each URL as a stream of its ``<main>``, sent when it has changed; one loader however many watch.
* ``app``: all of it as one ASGI application, with the headers and checks of ``guard``.

Pages are modules of ``pages`` with ``PAGES``; those of a domain come by CONSOLE_PAGES, each a module with ``PAGES``.
A template is a file of ``templates``, or of a domain page's own folder; it begins with ``{% extends "main.html" %}``,
fills the block ``main`` and takes its parts from ``macros.html``. Of time it shows a ``<time>`` (filters ``moment``,
``ago``, ``until``), so that a page changes only when its facts do. Rows that come and go have an ``id``, by which the
browser knows them again; the link of a row has ``data-row``, for j and k; the first field of a filter ``data-filter``,
for /. An action is a form with method="post" and a hidden field ``action``; its outcome is shown above the page.
"""

from twinlog.console.answers import Answer
from twinlog.console.looks import Look
from twinlog.console.page import Action, Form, Gone, Outcome, Page, Query, Unanswered, refused
from twinlog.console.services import Services

__all__ = [
    "Action",
    "Answer",
    "Form",
    "Gone",
    "Look",
    "Outcome",
    "Page",
    "Query",
    "Services",
    "Unanswered",
    "refused",
]
