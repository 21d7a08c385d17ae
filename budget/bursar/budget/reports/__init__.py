"""What was spent, by whom, on what and why: bills, spending with its waste, exports and charts."""
