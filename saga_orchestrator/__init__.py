"""Drives the credit saga of orders in orchestration mode."""
