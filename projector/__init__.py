"""The read side: builds views from all logs, and answers queries."""
