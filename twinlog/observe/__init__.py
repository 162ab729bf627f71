"""What a process shows of itself: wrappers of ports, consumers and methods; none of them is there where it is off."""
