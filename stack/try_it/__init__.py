"""The console's page to try the shop with: make a customer and an order, and watch its saga. CONSOLE_PAGES adds it."""

from stack.try_it.pages import PAGES

__all__ = ["PAGES"]
