"""The ledger: encoding records, the store that appends them, the audit, the overview page."""
