"""Installations side by side on the same servers, and what others send there."""
