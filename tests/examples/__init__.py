"""Projects of adopters, as they would have them."""
