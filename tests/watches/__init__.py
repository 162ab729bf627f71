"""Watches of views: what is told, once, whatever happens in between."""
