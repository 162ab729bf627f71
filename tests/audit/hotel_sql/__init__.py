"""The tables of the hotel's view of rooms."""
