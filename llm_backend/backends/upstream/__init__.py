"""Other servers that answer: which of them is asked, and what becomes of it when it fails."""
