"""Renders records, plans, reviews and problems as text, tables, Markdown, JSON: no effects."""
