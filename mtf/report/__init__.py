"""Tables, Markdown and text from records and plans: pure rendering."""
