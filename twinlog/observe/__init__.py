"""What operators see of a process, as wrappers of ports; nothing is wrapped where it is off."""
