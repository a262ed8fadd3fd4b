"""Checks beyond the schema: policies, the cluster's limits, probable mistakes."""
