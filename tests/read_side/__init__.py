"""Views over several logs, and what queries need to know of them."""
