"""Keeps customers and their credit."""
