"""The trainer computes what a loop written by hand in plain torch computes, bit for bit."""
