"""The ledger: records to bytes and back, and the store that appends them."""
