"""Audio: texts read aloud, names of voices, and recordings as text."""
