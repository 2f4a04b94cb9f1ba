"""What is done with keys: encrypt, sign, wrap, derive, certify; and what needs none."""
