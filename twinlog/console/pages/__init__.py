"""The pages of the console, in the order of its navigation."""

from twinlog.console.pages import dead_letters, events, past, saga, sagas, services, story, view, views

PAGES = [
    *services.PAGES,
    *sagas.PAGES,
    *saga.PAGES,
    *story.PAGES,
    *dead_letters.PAGES,
    *events.PAGES,
    *past.PAGES,
    *views.PAGES,
    *view.PAGES,
]

__all__ = ["PAGES"]
