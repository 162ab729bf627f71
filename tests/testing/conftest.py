"""The plugin's own fixtures, as services have them."""

from twinlog.testing.plugin import database as database
