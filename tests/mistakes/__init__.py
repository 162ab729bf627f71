"""Services that are put together wrongly."""
