"""Views that are built anew beside the old ones, on real servers."""
